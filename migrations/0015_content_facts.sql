-- What the media pipeline found in the bytes: with it, a picture that was judged before needs no decoding.
-- Of the pipeline's version that is named; another version looks again.
alter table contents
    add column facts json,
    add column pipeline text,
    add constraint contents_facts_whole check ((facts is null) = (pipeline is null));

-- Frames that differ from all before them, where they could be counted; how much PDQ may be relied on.
alter table verdicts
    add column frames_distinct bigint check (frames_distinct >= 0),
    add column pdq_quality smallint check (pdq_quality between 0 and 100),
    add constraint verdicts_pdq_whole check (pdq_quality is null or pdq is not null);

alter function grant_service_rights() rename to grant_service_rights_until_0014;

create function grant_service_rights() returns boolean
language plpgsql
as $$
begin
    if not grant_service_rights_until_0014() then
        return false;
    end if;
    grant update (facts, pipeline) on contents to shieldgate_service;
    return true;
end
$$;

revoke execute on function grant_service_rights() from public;
