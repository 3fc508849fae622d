//! Rows of `verdicts` and `verdict_policies`, and the way back into a [`Verdict`].

use time::OffsetDateTime;
use uuid::Uuid;

use super::super::read::{JsonText, Place, hex, utc};
use super::super::{Result, StoreError};
use crate::verdict::{
    Content, ErrorNote, Extent, ImageExtent, PolicyAnswer, TextExtent, Thresholds, Verdict,
};

#[derive(sqlx::FromRow)]
pub(super) struct VerdictRow {
    pub(super) id: Uuid,
    project: String,
    created_at: OffsetDateTime,
    status: String,
    action: String,
    cached: bool,
    submission_id: Uuid,
    source: String,
    reference: Option<String>,
    sha256: Vec<u8>,
    pdq: Option<Vec<u8>>,
    media_type: String,
    width: Option<i64>,
    height: Option<i64>,
    bytes: i64,
    frames_total: Option<i64>,
    frames_scored: Option<i64>,
    trailing_bytes: Option<i64>,
    frames_distinct: Option<i64>,
    pdq_quality: Option<i16>,
    characters: Option<i64>,
    metadata: JsonText,
    policies_not_run: JsonText,
    raised: JsonText,
    runtime: String,
    device: String,
}

impl VerdictRow {
    pub(super) fn verdict(self, policies: Vec<PolicyAnswer>) -> Result<Verdict> {
        let place = Place::new("verdicts", self.id);
        let content = Content {
            sha256: hex(&place.sha256("sha256", &self.sha256)?),
            media_type: self.media_type.clone(),
            bytes: place.count("bytes", self.bytes)?,
            extent: self.extent(&place)?,
        };
        Ok(Verdict {
            status: place.word("status", &self.status)?,
            action: place.word("action", &self.action)?,
            content,
            metadata: place.json("metadata", &self.metadata.0)?,
            policies_not_run: place.json("policies_not_run", &self.policies_not_run.0)?,
            raised: place.json("raised", &self.raised.0)?,
            id: self.id,
            cached: self.cached,
            submission_id: self.submission_id,
            project: self.project,
            reference: self.reference,
            source: self.source,
            policies,
            runtime: self.runtime,
            device: self.device,
            created_at: utc(self.created_at),
        })
    }
}

impl VerdictRow {
    fn extent(&self, place: &Place) -> Result<Extent> {
        if let Some(characters) = self.characters {
            let characters = place.count("characters", characters)?;
            return Ok(Extent::Text(TextExtent { characters }));
        }
        let of_image = |column: &'static str, value: Option<i64>| {
            let value = value.ok_or_else(|| place.wrong(column, "it is null, and so is `characters`"))?;
            place.count(column, value)
        };
        let distinct = self.frames_distinct.map(|frames| place.count("frames_distinct", frames));
        let quality = self.pdq_quality.map(|quality| place.count("pdq_quality", i64::from(quality)));
        let trailing = self.trailing_bytes.map(|bytes| place.count("trailing_bytes", bytes));
        let pdq = self.pdq.as_ref().map(|pdq| place.sha256("pdq", pdq).map(|pdq| hex(&pdq)));
        Ok(Extent::Image(ImageExtent {
            pdq: pdq.transpose()?,
            pdq_quality: quality.transpose()?,
            width: of_image("width", self.width)?,
            height: of_image("height", self.height)?,
            frames_total: of_image("frames_total", self.frames_total)?,
            frames_scored: of_image("frames_scored", self.frames_scored)?,
            frames_distinct: distinct.transpose()?,
            trailing_bytes: trailing.transpose()?,
        }))
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct PolicyRow {
    pub(super) verdict_id: Uuid,
    policy: String,
    version: String,
    outcome: String,
    action: String,
    probability: Option<f32>,
    review: Option<f32>,
    block: Option<f32>,
    error_code: Option<String>,
    error_message: Option<String>,
    override_id: Option<Uuid>,
    judges: JsonText,
    judges_not_run: JsonText,
}

impl TryFrom<PolicyRow> for PolicyAnswer {
    type Error = StoreError;

    fn try_from(row: PolicyRow) -> Result<Self> {
        let place =
            Place::new("verdict_policies", format!("{}/{}/{}", row.verdict_id, row.policy, row.version));
        if row.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err(place.wrong("probability", "it is not between 0 and 1"));
        }
        Ok(Self {
            outcome: place.word("outcome", &row.outcome)?,
            action: place.word("action", &row.action)?,
            probability: row.probability,
            thresholds: row.review.zip(row.block).map(|(review, block)| Thresholds { review, block }),
            error: row.error_code.zip(row.error_message).map(|(code, message)| ErrorNote { code, message }),
            judges: place.json("judges", &row.judges.0)?,
            judges_not_run: place.json("judges_not_run", &row.judges_not_run.0)?,
            override_id: row.override_id,
            policy: row.policy,
            version: row.version,
        })
    }
}
