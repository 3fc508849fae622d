-- New partitions come only from here: the service may not create tables, and a partition without its
-- TRUNCATE trigger would be a hole in the record. Called after migrating (not by a migration: the day
-- is an argument), at start and daily, well ahead of need, since a month whose rows already lie in the
-- default partition can no longer be cut out of it.

-- LIKE and ATTACH instead of PARTITION OF: that would lock the parent against every insert.
create function make_range_partition(parent text, name text, lower text, upper text) returns text
language plpgsql
as $$
begin
    if to_regclass(format('%I', name)) is not null then
        return 'exists';
    end if;
    execute format('create table %I (like %I including all)', name, parent);
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, name, lower, upper);
    perform guard_append_only(format('%I', name)::regclass);
    if exists (select from pg_roles where rolname = 'shieldgate_service') then
        execute format('revoke all on %I from public, shieldgate_service', name);
    end if;
    return 'created';
exception
    -- Inserts still succeed, into the default partition. The caller reports; a person must move the rows.
    when check_violation then
        return 'refused: the default partition already holds rows of this range';
    when lock_not_available or deadlock_detected then
        return 'refused: the table was busy';
end
$$;

create function ensure_partitions(at timestamptz, months_ahead integer)
returns table (parent_name text, partition_name text, outcome text)
language plpgsql
security definer
set lock_timeout = '5s'
as $$
declare
    rows_each constant bigint := 10000000;
    month timestamp;
    chunk bigint;
begin
    if at is null or at not between '2020-01-01Z' and '2200-01-01Z' or months_ahead not between 0 and 24 then
        raise exception 'ensure_partitions refused: % and % months ahead', at, months_ahead
            using errcode = 'invalid_parameter_value';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('shieldgate.partitions', 0));

    for ahead in 0 .. months_ahead loop
        month := date_trunc('month', at at time zone 'UTC') + make_interval(months => ahead);
        foreach parent_name in array array['verdicts', 'verdict_policies', 'review_decisions'] loop
            partition_name := parent_name || to_char(month, '_YYYY_MM');
            outcome := make_range_partition(
                parent_name, partition_name,
                uuid_floor(month at time zone 'UTC')::text,
                uuid_floor((month + interval '1 month') at time zone 'UTC')::text);
            if outcome <> 'exists' then
                return next;
            end if;
        end loop;
    end loop;

    parent_name := 'audit';
    select last_value / rows_each into chunk from audit_seq;
    for ahead in 0 .. 1 loop
        partition_name := 'audit_' || lpad((chunk + ahead)::text, 6, '0');
        outcome := make_range_partition(
            parent_name, partition_name,
            ((chunk + ahead) * rows_each)::text, ((chunk + ahead + 1) * rows_each)::text);
        if outcome <> 'exists' then
            return next;
        end if;
    end loop;
end
$$;

-- The tables whose default partition holds rows. Asked of the partitions themselves, on which the service
-- has no rights: the planner does not exclude partitions by tableoid, so through the parent the answer
-- "none" would cost a scan of everything.
create function tables_astray() returns text[]
language sql
stable
security definer
as $$
    select coalesce(array_agg(parent_name order by parent_name), '{}')
    from (values
        ('audit', exists (select from audit_default)),
        ('review_decisions', exists (select from review_decisions_default)),
        ('verdict_policies', exists (select from verdict_policies_default)),
        ('verdicts', exists (select from verdicts_default))) found (parent_name, astray)
    where astray
$$;

revoke execute on function
    make_range_partition(text, text, text, text), ensure_partitions(timestamptz, integer), tables_astray()
from public;

-- A SECURITY DEFINER function must not find its names through the caller's search_path, and the tables
-- stand in whatever schema the owner migrates into. (pg_catalog is searched first unless it is named.)
do $$
declare
    signature regprocedure;
begin
    foreach signature in array array[
        'refuse_change()', 'refuse_other_body()', 'uuid_floor(timestamptz)', 'guard_append_only(regclass)',
        'guard_append_only_rows(regclass)', 'guard_against_removal(regclass)',
        'make_hash_partitions(regclass, integer, boolean)', 'make_range_partition(text, text, text, text)',
        'ensure_partitions(timestamptz, integer)', 'tables_astray()']::regprocedure[]
    loop
        execute format('alter function %s set search_path = %I, pg_temp', signature, current_schema());
    end loop;
end
$$;
