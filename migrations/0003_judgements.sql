-- One judge's probability for one question about one content: reusable, so that the same bytes get
-- the same judgement and a threshold change needs no model.
-- No foreign keys on the verdict's path: each would take a share lock on the one row of `judges`
-- that every upload points at.
create table judges (
    id integer generated always as identity primary key,
    digest bytea not null constraint judges_digest unique check (octet_length(digest) = 32),
    kind text not null,
    name text not null,
    demo boolean not null
);

create table judgements (
    sha256 bytea not null check (octet_length(sha256) = 32),
    judge_id integer not null,
    question_hash bytea not null check (octet_length(question_hash) = 32),
    -- Whose upload it was judged for first: only that project may recall it, and those that shared it.
    project text not null,
    -- NaN sorts above every number in Postgres, so `between` refuses it too.
    probability real not null check (probability between 0 and 1),
    worst_frame bigint check (worst_frame >= 0),
    worst_at_ms bigint check (worst_at_ms >= 0),
    worst_background text check (worst_background in ('white', 'black')),
    runtime text not null,
    device text not null,
    at timestamptz not null,
    primary key (sha256, judge_id, question_hash),
    constraint judgements_worst_whole check (
        (worst_frame is null) = (worst_at_ms is null)
        and (worst_background is null or worst_frame is not null))
) partition by hash (sha256);

-- Another project that asked the same question about the same bytes and had it judged itself. Without
-- this row `cached` would tell it that somebody else had uploaded them. A verdict of its own for these
-- bytes is not enough: that one may rest on an override or on another question.
create table judgement_shares (
    sha256 bytea not null,
    judge_id integer not null,
    question_hash bytea not null,
    project text not null,
    primary key (sha256, judge_id, question_hash, project)
) partition by hash (sha256);

select make_hash_partitions('judgements', 16, true);
select make_hash_partitions('judgement_shares', 16, true);
