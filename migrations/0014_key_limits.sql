-- How much a key may submit: so many a second in each process, so many a day in all of them. Null: no limit.
alter table api_keys
    add column rate_per_second real check (rate_per_second > 0 and rate_per_second < 'Infinity'::real),
    add column daily_quota bigint check (daily_quota > 0);

-- What processes have taken of a key's quota for a day (UTC). They take it in portions, so that not
-- every submission waits for this row; what was taken and not used is given back at the end.
create table key_usage (
    key_id uuid not null,
    day date not null,
    taken bigint not null check (taken >= 0),
    primary key (key_id, day)
);

alter function grant_service_rights() rename to grant_service_rights_until_0012;

create function grant_service_rights() returns boolean
language plpgsql
as $$
begin
    if not grant_service_rights_until_0012() then
        return false;
    end if;
    grant select, insert, update, delete on key_usage to shieldgate_service;
    return true;
end
$$;

revoke execute on function grant_service_rights() from public;
