-- The second role. The owner migrates; the service may only insert and select on the record, and has no
-- rights on partitions directly. An operator may log in as this role or as a member of it.
do $$
begin
    if not exists (select from pg_roles where rolname = 'shieldgate_service') then
        create role shieldgate_service nologin;
    end if;
exception
    -- Roles belong to the cluster: another database's migration may be making it this very moment.
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise notice 'role shieldgate_service not created: % may not create roles', current_user
            using hint = 'create it and run `shieldgate migrate` again';
end
$$;

-- Run after every migration, and again when the role came later. Says whether the role is there.
create function grant_service_rights() returns boolean
language plpgsql
as $$
begin
    if not exists (select from pg_roles where rolname = 'shieldgate_service') then
        return false;
    end if;
    execute format('grant usage on schema %I to shieldgate_service', current_schema());

    grant select, insert on
        verdicts, verdict_policies, judgements, judgement_shares, audit, audit_seals, review_decisions
    to shieldgate_service;
    grant usage, select on sequence audit_seq to shieldgate_service;

    grant select, insert on judges to shieldgate_service;
    grant select, insert on contents to shieldgate_service;
    grant update (kept_at, kept_until, pdq, legal_hold) on contents to shieldgate_service;
    grant select, insert on policy_versions to shieldgate_service;
    grant update (state, state_by, state_at) on policy_versions to shieldgate_service;
    grant select, insert, update on policy_generations to shieldgate_service;
    grant select, insert on overrides to shieldgate_service;
    grant update (deleted_by, deleted_at) on overrides to shieldgate_service;
    grant select, insert, update, delete on idempotency to shieldgate_service;
    grant select, insert on api_keys to shieldgate_service;
    grant update (revoked_at) on api_keys to shieldgate_service;
    grant select on _sqlx_migrations to shieldgate_service;

    grant execute on function ensure_partitions(timestamptz, integer), tables_astray() to shieldgate_service;
    return true;
end
$$;

revoke execute on function grant_service_rights() from public;
