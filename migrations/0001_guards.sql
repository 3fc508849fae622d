-- Append-only tables are the ground of the audit promise, so the refusal lives in the database and
-- binds the owner too: whoever changes a record must first take a trigger away, and that is visible.
-- Retention and erasure will need a designed way through (whole partitions detached by the owner,
-- with an audit entry): until then there is none.

create function refuse_change() returns trigger
language plpgsql
as $$
begin
    raise exception '% on % refused: this table is append-only', tg_op, tg_table_name
        using errcode = 'restrict_violation',
              hint = 'write a new row that says what changed';
end
$$;

-- A trigger on a partitioned parent does not stop `TRUNCATE partition` (tried on Postgres 15), so
-- every partition gets the statement trigger as well. ENABLE ALWAYS: session_replication_role does
-- not switch it off.
create function guard_append_only(relation regclass) returns void
language plpgsql
as $$
begin
    execute format(
        'create trigger append_only before update or delete or truncate on %s '
        'for each statement execute function refuse_change()', relation);
    execute format('alter table %s enable always trigger append_only', relation);
end
$$;

-- Rows of a partition that somebody attached by hand, without the statement trigger: a row trigger
-- on the parent is inherited by whatever becomes its partition.
create function guard_append_only_rows(relation regclass) returns void
language plpgsql
as $$
begin
    execute format(
        'create trigger append_only_row before update or delete on %s '
        'for each row execute function refuse_change()', relation);
end
$$;

-- For the mutable tables whose rows still must not vanish (overrides, policy versions).
create function guard_against_removal(relation regclass) returns void
language plpgsql
as $$
begin
    execute format(
        'create trigger no_removal before delete or truncate on %s '
        'for each statement execute function refuse_change()', relation);
    execute format('alter table %s enable always trigger no_removal', relation);
end
$$;

-- The smallest UUID whose time prefix is not before `at`: UUIDv7 begins with 48 bits of milliseconds.
create function uuid_floor(at timestamptz) returns uuid
language sql
immutable
as $$
    select (lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- `count` hash partitions of a growing table, so that no index and no vacuum has to swallow it whole.
create function make_hash_partitions(parent regclass, count integer, append_only boolean) returns void
language plpgsql
as $$
declare
    name text;
begin
    for remainder in 0 .. count - 1 loop
        name := format('%s_%s', parent, lpad(remainder::text, 2, '0'));
        execute format('create table %I partition of %s for values with (modulus %s, remainder %s)',
                       name, parent, count, remainder);
        if append_only then
            perform guard_append_only(name::regclass);
        end if;
    end loop;
    if append_only then
        perform guard_append_only(parent);
        perform guard_append_only_rows(parent);
    end if;
end
$$;

revoke execute on function
    guard_append_only(regclass), guard_append_only_rows(regclass), guard_against_removal(regclass),
    make_hash_partitions(regclass, integer, boolean)
from public;
