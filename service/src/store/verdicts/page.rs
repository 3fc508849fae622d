//! Verdicts newest first, page by page.

use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::{Duration, OffsetDateTime};

use super::super::cursor::{self, Cursor, List, Page, bounded};
use super::super::read::{Word as _, uuid_floor};
use super::super::{Result, Sha256};
use super::row::VerdictRow;
use super::with_policies;
use crate::verdict::{Action, Verdict};

/// What is set narrows; all of it together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Verdicts in which this policy answered.
    pub policy: Option<String>,
    /// The verdict's own action, not a policy's.
    pub action: Option<Action>,
    pub source: Option<String>,
    /// `created_at` from here on.
    pub since: Option<OffsetDateTime>,
    /// `created_at` before this.
    pub until: Option<OffsetDateTime>,
    pub sha256: Option<Sha256>,
    pub reference: Option<String>,
    /// A policy (`policy`, where that is set) gave at least this probability.
    pub min_probability: Option<f32>,
    /// Whether a person has decided about it.
    pub reviewed: Option<bool>,
}

/// Sorted by id alone, which is unique and never changes, so the key of the last row is a place that
/// stays where it is:
///
/// ```text
/// page 1 ends at id 7          … 9 8 7 | 6 5 4 …
/// verdict 10 is recorded    10 9 8 7 | 6 5 4 …
/// page 2, `id < 7`                     6 5 4 …    nothing twice, nothing left out
/// ```
///
/// Ids are made before their transaction commits, so a verdict may appear *above* a page that was read
/// already; whoever pages from the newest again sees it. Nobody may take the list for a log.
#[tracing::instrument(name = "db.verdict.page", skip_all)]
pub async fn page(
    conn: &mut PgConnection,
    project: &str,
    filter: &Filter,
    cursor: Option<Cursor>,
    limit: u32,
) -> Result<Page<Verdict>> {
    let limit = bounded(limit);
    let mut sql = QueryBuilder::<Postgres>::new("select v.* from verdicts v where v.project = ");
    sql.push_bind(project);
    if let Some(cursor) = cursor {
        sql.push(" and v.id < ").push_bind(cursor.id(List::Verdicts)?);
    }
    if let Some(since) = filter.since {
        // The bound on the id spares the older partitions; it is wider than what it helps to find.
        sql.push(" and v.created_at >= ").push_bind(since);
        sql.push(" and v.id >= ").push_bind(uuid_floor(since.saturating_sub(Duration::DAY)));
    }
    if let Some(until) = filter.until {
        sql.push(" and v.created_at < ").push_bind(until);
        sql.push(" and v.id < ").push_bind(uuid_floor(until.saturating_add(2 * Duration::DAY)));
    }
    if let Some(action) = filter.action {
        sql.push(" and v.action = ").push_bind(action.word());
        if action != Action::Allow {
            // Says to the planner that the partial index will do, whatever the bound value is.
            sql.push(" and v.action <> 'allow'");
        }
    }
    if let Some(source) = &filter.source {
        sql.push(" and v.source = ").push_bind(source);
    }
    if let Some(sha256) = filter.sha256 {
        sql.push(" and v.sha256 = ").push_bind(sha256);
    }
    if let Some(reference) = &filter.reference {
        sql.push(" and v.reference = ").push_bind(reference);
    }
    if filter.policy.is_some() || filter.min_probability.is_some() {
        sql.push(
            " and exists (select from verdict_policies p where p.verdict_id = v.id and p.project = v.project",
        );
        if let Some(policy) = &filter.policy {
            sql.push(" and p.policy = ").push_bind(policy);
        }
        if let Some(min_probability) = filter.min_probability {
            // What a shadow version says moves nobody's queue.
            sql.push(" and p.outcome <> 'shadow' and p.probability >= ").push_bind(min_probability);
        }
        sql.push(")");
    }
    if let Some(reviewed) = filter.reviewed {
        sql.push(if reviewed { " and exists" } else { " and not exists" });
        sql.push(" (select from review_decisions d where d.verdict_id = v.id)");
    }
    sql.push(" order by v.id desc limit ").push_bind(i64::try_from(limit + 1).unwrap_or(i64::MAX));
    let rows: Vec<VerdictRow> = sql.build_query_as().fetch_all(&mut *conn).await?;
    let rows = cursor::page(rows, limit, |last| Cursor::after_id(List::Verdicts, last.id));
    Ok(Page { data: with_policies(conn, rows.data).await?, next_cursor: rows.next_cursor })
}
