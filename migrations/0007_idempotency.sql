-- Which verdict answered an Idempotency-Key, per project and route. Not partitioned: the key must be
-- unique over all rows, and a row lives a day (an expired one is replaced, or swept).
create table idempotency (
    project text not null,
    route text not null,
    key text not null,
    -- Of the request, so that the same key with another body is a conflict and not a replay.
    fingerprint bytea not null check (octet_length(fingerprint) = 32),
    verdict_id uuid not null,
    created_at timestamptz not null,
    primary key (project, route, key)
);

create index idempotency_created_at on idempotency (created_at);
