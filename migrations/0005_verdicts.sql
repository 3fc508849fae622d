-- The answer to each accepted submission. Range-partitioned by its UUIDv7, so that the id stays unique
-- across partitions and a look-up by id meets one partition; the time prefix makes the ranges months.
-- Append-only: what was answered is what is on record.
create table verdicts (
    id uuid not null,
    project text not null,
    created_at timestamptz not null,
    -- A pending submission has no verdict yet, so it needs a row elsewhere.
    status text not null check (status in ('done', 'failed')),
    action text not null check (action in ('allow', 'review', 'block')),
    cached boolean not null,
    submission_id uuid not null,
    rescan_id uuid,
    source text not null,
    reference text,
    -- A keyed hash of the client's account id; the id itself is not stored.
    subject_hash bytea check (octet_length(subject_hash) = 32),
    key_id uuid,
    policy_generation bigint not null check (policy_generation >= 0),
    -- The content as it was looked at: `contents` may learn more later, this verdict may not.
    sha256 bytea not null check (octet_length(sha256) = 32),
    pdq bytea check (octet_length(pdq) = 32),
    media_type text not null,
    width bigint not null check (width >= 0),
    height bigint not null check (height >= 0),
    bytes bigint not null check (bytes >= 0),
    frames_total bigint not null check (frames_total >= 0),
    frames_scored bigint not null check (frames_scored >= 0),
    trailing_bytes bigint check (trailing_bytes >= 0),
    -- json, not jsonb: the client's document comes back as it was answered, with 1e2, -0.0 and even the
    -- \u0000 that jsonb cannot hold. Nothing is searched in it.
    metadata json not null check (json_typeof(metadata) = 'object'),
    policies_not_run json not null check (json_typeof(policies_not_run) = 'array'),
    -- Why the action is more severe than the policies' own.
    raised json not null check (json_typeof(raised) = 'array'),
    runtime text not null,
    device text not null,
    primary key (id)
) partition by range (id);

-- Newest first within a project, plain or by what people look for.
create index verdicts_project on verdicts (project, id);
create index verdicts_content on verdicts (project, sha256, id);
create index verdicts_reference on verdicts (project, reference, id) where reference is not null;
create index verdicts_not_allowed on verdicts (project, action, id) where action <> 'allow';

-- What each policy answered in a verdict. The version belongs to the key: an active and a shadow
-- version of one policy stand side by side.
create table verdict_policies (
    verdict_id uuid not null,
    policy text not null,
    version text not null,
    project text not null,
    -- The order in which they were answered.
    position smallint not null check (position >= 0),
    outcome text not null check (outcome in ('judged', 'recalled', 'on_error', 'override', 'shadow')),
    action text not null check (action in ('allow', 'review', 'block')),
    probability real check (probability between 0 and 1),
    review real,
    block real,
    decided_by text,
    error_code text,
    error_message text,
    override_id uuid,
    judges json not null check (json_typeof(judges) = 'array'),
    judges_not_run json not null check (json_typeof(judges_not_run) = 'array'),
    primary key (verdict_id, policy, version),
    constraint verdict_policies_thresholds check (
        (review is null) = (block is null) and review <= block and block < 'NaN'::real),
    constraint verdict_policies_error_whole check ((error_code is null) = (error_message is null)),
    -- Nothing silently safe: an action without a probability says where it came from.
    constraint verdict_policies_judged check (outcome not in ('judged', 'recalled') or probability is not null),
    constraint verdict_policies_on_error check (
        outcome <> 'on_error' or (probability is null and error_code is not null)),
    constraint verdict_policies_override check ((outcome = 'override') = (override_id is not null))
) partition by range (verdict_id);

create index verdict_policies_policy on verdict_policies (project, policy, verdict_id);

create table verdicts_default partition of verdicts default;
create table verdict_policies_default partition of verdict_policies default;

select guard_append_only(relation::regclass)
from unnest(array['verdicts', 'verdicts_default', 'verdict_policies', 'verdict_policies_default']) relation;
select guard_append_only_rows(relation::regclass) from unnest(array['verdicts', 'verdict_policies']) relation;
