-- API keys, found by their hash: 256 random bits need no slow hash. No last_used_at: it would turn every
-- request into a write; the verdicts carry the key's id.
create table api_keys (
    project text not null,
    id uuid not null,
    name text not null,
    -- The first characters, so that people can tell their keys apart.
    prefix text not null,
    hash bytea not null constraint api_keys_hash unique check (octet_length(hash) = 32),
    scopes text[] not null check (
        cardinality(scopes) > 0 and scopes <@ array['moderate', 'read', 'review', 'admin']),
    created_at timestamptz not null,
    revoked_at timestamptz,
    primary key (project, id)
);

select guard_against_removal('api_keys');
