-- What a person decided about a verdict; a second opinion is a second row. The queue itself
-- (review_items: small, mutable) comes with the review.
create table review_decisions (
    verdict_id uuid not null,
    id uuid not null,
    project text not null,
    decision text not null check (decision in ('uphold', 'overturn', 'escalate')),
    reason text not null,
    reviewer text not null,
    at timestamptz not null,
    primary key (verdict_id, id)
) partition by range (verdict_id);

create table review_decisions_default partition of review_decisions default;

select guard_append_only(relation::regclass)
from unnest(array['review_decisions', 'review_decisions_default']) relation;
select guard_append_only_rows('review_decisions');
