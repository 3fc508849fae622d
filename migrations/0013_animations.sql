-- Of an animation every frame that was looked at has a probability: a policy may want several frames to
-- reach a threshold, so the worst alone would not let it be recalled. Null for still pictures.
alter table judgements
    add column frames json,
    add constraint judgements_frames check (
        frames is null or (json_typeof(frames) = 'array' and worst_frame is not null));
