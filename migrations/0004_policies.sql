-- Postgres says which version of a policy is active, so that every process judges alike. A version is
-- the hash of the policy's canonical content, so the body never changes; only its state does.
create table policy_versions (
    project text not null,
    policy text not null,
    version text not null,
    body jsonb not null check (jsonb_typeof(body) = 'object'),
    state text not null check (state in ('draft', 'shadow', 'active', 'retired')),
    imported_by text not null,
    imported_at timestamptz not null,
    state_by text not null,
    state_at timestamptz not null,
    primary key (project, policy, version)
);

create unique index policy_versions_one_active on policy_versions (project, policy) where state = 'active';
create unique index policy_versions_one_shadow on policy_versions (project, policy) where state = 'shadow';

-- Raised in the transaction of every change that affects judging, and read with every request: a
-- process sees for the price of one number that the policies it holds are stale. Its row also
-- serialises the changes of one project.
create table policy_generations (
    project text primary key,
    generation bigint not null check (generation > 0)
);

create function refuse_other_body() returns trigger
language plpgsql
as $$
begin
    raise exception 'policy % version % refused: a version is the hash of its content', old.policy, old.version
        using errcode = 'restrict_violation', hint = 'import the changed policy as a new version';
end
$$;

create trigger body_is_fixed before update on policy_versions
for each row
when ((old.project, old.policy, old.version, old.body) is distinct from
      (new.project, new.policy, new.version, new.body))
execute function refuse_other_body();

select guard_against_removal('policy_versions');
select guard_against_removal('policy_generations');
