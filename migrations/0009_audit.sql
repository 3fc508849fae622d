-- Who did what to what, from the first row on with the RFC 6962 leaf hash that the seals rest on.
-- Range-partitioned by its own sequence, ten million rows a partition. A gap in the sequence is a
-- transaction that rolled back; a seal therefore names the entries it covers.
create sequence audit_seq as bigint minvalue 0 start 0;

create table audit (
    seq bigint not null default nextval('audit_seq'),
    id uuid not null,
    at timestamptz not null,
    project text not null,
    actor text not null,
    act text not null,
    target text,
    -- json, not jsonb: the leaf hash covers these very characters. No metadata, no content.
    hashes json not null check (json_typeof(hashes) = 'object'),
    detail json not null check (json_typeof(detail) = 'object'),
    leaf_hash bytea not null check (octet_length(leaf_hash) = 32),
    primary key (seq)
) partition by range (seq);

create index audit_project on audit (project, seq);
create index audit_target on audit (project, target, seq) where target is not null;

create table audit_default partition of audit default;

-- Merkle roots over runs of entries, each chained to the one before.
create table audit_seals (
    id bigint primary key check (id >= 0),
    first_seq bigint not null check (first_seq >= 0),
    last_seq bigint not null check (last_seq >= first_seq),
    entries bigint not null check (entries > 0),
    root bytea not null check (octet_length(root) = 32),
    previous_root bytea check (octet_length(previous_root) = 32),
    -- The signed note as it is exported, and the key (outside this database) that signed it.
    checkpoint text not null,
    key_id text not null,
    sealed_at timestamptz not null,
    constraint audit_seals_chained check ((id = 0) = (previous_root is null))
);

select guard_append_only(relation::regclass) from unnest(array['audit', 'audit_default', 'audit_seals']) relation;
select guard_append_only_rows(relation::regclass) from unnest(array['audit', 'audit_seals']) relation;
