-- Texts: they have characters and no pixels, and are judged in windows, as written and folded.
alter table contents
    alter column width drop not null,
    alter column height drop not null,
    alter column frames_total drop not null,
    add column characters bigint check (characters >= 0),
    add constraint contents_extent check (
        (kind = 'text') = (characters is not null)
        and num_nonnulls(width, height, frames_total) = case when characters is null then 3 else 0 end);

alter table verdicts
    alter column width drop not null,
    alter column height drop not null,
    alter column frames_total drop not null,
    alter column frames_scored drop not null,
    add column characters bigint check (characters >= 0),
    add constraint verdicts_extent check (
        num_nonnulls(width, height, frames_total, frames_scored)
            = case when characters is null then 4 else 0 end);

alter table judgements
    add column worst_start bigint check (worst_start >= 0),
    add column worst_end bigint,
    add column worst_form text check (worst_form in ('written', 'folded')),
    add constraint judgements_worst_window check (
        (worst_start is null) = (worst_end is null) and (worst_start is null) = (worst_form is null)
        and (worst_start is null or worst_frame is null)
        and (worst_start is null or worst_end >= worst_start));
