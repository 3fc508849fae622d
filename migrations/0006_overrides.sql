-- An operator's word that stands above the judges: for one content, or for one policy as a whole (the
-- kill switch). Looked at first on every request. Ended by expiry or by deleted_at, never removed,
-- since verdicts point here.
create table overrides (
    id uuid not null,
    project text not null,
    sha256 bytea check (octet_length(sha256) = 32),
    policy text,
    action text not null check (action in ('allow', 'review', 'block')),
    reason text not null check (reason <> ''),
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz check (expires_at > created_at),
    deleted_by text,
    deleted_at timestamptz,
    primary key (project, id),
    -- Neither would switch off the whole gate.
    constraint overrides_aim check (sha256 is not null or policy is not null),
    constraint overrides_deleted_whole check ((deleted_by is null) = (deleted_at is null))
);

create index overrides_content on overrides (project, sha256) where deleted_at is null and sha256 is not null;
create index overrides_kill_switch on overrides (project) where deleted_at is null and sha256 is null;

select guard_against_removal('overrides');
