-- What was submitted, named by its SHA-256. The bytes themselves never come here; the row says where
-- they are kept and until when. Mutable: keeping may be prolonged and ends, PDQ comes later.
create table contents (
    sha256 bytea not null check (octet_length(sha256) = 32),
    kind text not null check (kind in ('image', 'text')),
    media_type text not null,
    bytes bigint not null check (bytes >= 0),
    width bigint not null check (width >= 0),
    height bigint not null check (height >= 0),
    frames_total bigint not null check (frames_total >= 0),
    pdq bytea check (octet_length(pdq) = 32),
    first_seen_at timestamptz not null,
    kept_at text,
    kept_until timestamptz,
    -- Set: the bytes stay whatever kept_until says.
    legal_hold boolean not null default false,
    primary key (sha256),
    constraint contents_kept_until_some_day check ((kept_at is null) = (kept_until is null))
) partition by hash (sha256);

select make_hash_partitions('contents', 16, false);

-- The sweeper's question: whose time is over?
create index contents_kept_until on contents (kept_until) where kept_at is not null;
