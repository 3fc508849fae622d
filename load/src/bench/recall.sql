-- The inserts of one recalled upload, as pgbench runs them: one transaction of the same rows in the same
-- tables as service/src/moderate/record.rs writes for it. `{{…}}` are literals taken from a verdict that the
-- gate under test has just given, so that sizes and columns are its own.
\set low random(0, 4095)
\set high random(0, 4611686018427387903)
begin;
insert into contents (sha256, kind, media_type, bytes, width, height, frames_total, pdq, first_seen_at, kept_at, kept_until)
values ({{sha256}}, 'image', {{media_type}}, {{bytes}}, {{width}}, {{height}}, {{frames_total}}, {{pdq}}, now(), null, null)
on conflict (sha256) do nothing;
with verdict as (
    insert into verdicts (id, project, created_at, status, action, cached, submission_id, rescan_id,
                          source, reference, subject_hash, key_id, policy_generation,
                          sha256, pdq, media_type, width, height, bytes, frames_total, frames_scored,
                          trailing_bytes, metadata, policies_not_run, runtime, device, raised)
    values ({{id}}, {{project}}, now(), {{status}}, {{action}}, {{cached}}, {{id}}, null,
            {{source}}, null, null, {{key_id}}, 1,
            {{sha256}}, {{pdq}}, {{media_type}}, {{width}}, {{height}}, {{bytes}}, {{frames_total}}, {{frames_scored}},
            {{trailing_bytes}}, {{metadata}}, {{policies_not_run}}, {{runtime}}, {{device}}, {{raised}}))
insert into verdict_policies (verdict_id, project, position, policy, version, outcome, action,
                              probability, review, block, decided_by, error_code, error_message,
                              override_id, judges, judges_not_run)
values {{policies}};
insert into audit (id, at, project, actor, act, target, hashes, detail, leaf_hash)
values ({{id}}, now(), {{project}}, {{actor}}, 'verdict.recorded', cast({{id}} as text),
        {{hashes}}, {{detail}}, {{leaf_hash}});
commit;
