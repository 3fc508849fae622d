//! `policy_versions` and `policy_generations`: which version of a policy judges, so that all processes agree.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::read::{Place, Word as _, utc, words};
use super::{Result, StoreError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PolicyState)]
pub enum State {
    /// Imported, without effect.
    Draft,
    /// Judged and recorded, without effect on the action.
    Shadow,
    Active,
    Retired,
}

words!(State { Draft = "draft", Shadow = "shadow", Active = "active", Retired = "retired" });

#[derive(Debug, Clone, PartialEq)]
pub struct PolicyVersion {
    pub project: String,
    pub policy: String,
    /// Hash of the canonical content.
    pub version: String,
    pub body: serde_json::Value,
    pub state: State,
    pub imported_by: String,
    pub imported_at: OffsetDateTime,
    /// Who brought it into its state, and when.
    pub state_by: String,
    pub state_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct Row {
    project: String,
    policy: String,
    version: String,
    body: sqlx::types::Json<serde_json::Value>,
    state: String,
    imported_by: String,
    imported_at: OffsetDateTime,
    state_by: String,
    state_at: OffsetDateTime,
}

impl TryFrom<Row> for PolicyVersion {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let place = Place::new("policy_versions", format!("{}/{}/{}", row.project, row.policy, row.version));
        Ok(Self {
            state: place.word("state", &row.state)?,
            project: row.project,
            policy: row.policy,
            version: row.version,
            body: row.body.0,
            imported_by: row.imported_by,
            imported_at: utc(row.imported_at),
            state_by: row.state_by,
            state_at: utc(row.state_at),
        })
    }
}

/// Names one version of one policy.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    pub project: &'a str,
    pub policy: &'a str,
    pub version: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Import {
    Imported,
    AlreadyThere(State),
}

/// No effect on judging, so no new generation.
#[tracing::instrument(name = "db.policy.import_draft", skip_all, fields(policy = named.policy))]
pub async fn import_draft(
    conn: &mut PgConnection,
    named: Named<'_>,
    body: &serde_json::Value,
    by: &str,
    at: OffsetDateTime,
) -> Result<Import> {
    let done = sqlx::query(
        "insert into policy_versions (project, policy, version, body, state,
                                      imported_by, imported_at, state_by, state_at)
         values ($1, $2, $3, $4, 'draft', $5, $6, $5, $6)
         on conflict (project, policy, version) do nothing",
    )
    .bind(named.project)
    .bind(named.policy)
    .bind(named.version)
    .bind(sqlx::types::Json(body))
    .bind(by)
    .bind(at)
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(Import::Imported);
    }
    match state_of(conn, named).await? {
        Some(state) => Ok(Import::AlreadyThere(state)),
        None => Err(StoreError::Unavailable { source: sqlx::Error::RowNotFound }),
    }
}

async fn state_of(conn: &mut PgConnection, named: Named<'_>) -> Result<Option<State>> {
    let word: Option<String> = sqlx::query_scalar(
        "select state from policy_versions where project = $1 and policy = $2 and version = $3",
    )
    .bind(named.project)
    .bind(named.policy)
    .bind(named.version)
    .fetch_optional(conn)
    .await?;
    let place =
        Place::new("policy_versions", format!("{}/{}/{}", named.project, named.policy, named.version));
    word.map(|word| place.word("state", &word)).transpose()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Changed {
        from: State,
        /// The version that was in this state before and is retired by this change.
        displaced: Option<String>,
        generation: i64,
    },
    /// It was in that state already; nothing was written.
    Unchanged,
    /// No such version.
    Unknown,
}

/// Activates, puts in the shadow or retires; from every state, for a rollback is an activation of a
/// retired version. At most one version of a policy is active and one in the shadow: the one that was is
/// retired. Raises the project's generation. The caller audits it in the same transaction.
#[tracing::instrument(name = "db.policy.set_state", skip_all, fields(policy = named.policy, state = state.word()))]
pub async fn set_state(
    conn: &mut PgConnection,
    named: Named<'_>,
    state: State,
    by: &str,
    at: OffsetDateTime,
) -> Result<Change> {
    // First, because its row lock lets one change of a project in at a time.
    let generation: i64 = sqlx::query_scalar(
        "insert into policy_generations as g (project, generation) values ($1, 1)
         on conflict (project) do update set generation = g.generation + 1
         returning generation",
    )
    .bind(named.project)
    .fetch_one(&mut *conn)
    .await?;
    let from = match state_of(conn, named).await? {
        None => return Ok(Change::Unknown),
        Some(from) if from == state => return Ok(Change::Unchanged),
        Some(from) => from,
    };
    let mut displaced = None;
    if matches!(state, State::Active | State::Shadow) {
        displaced = sqlx::query_scalar(
            "update policy_versions set state = 'retired', state_by = $4, state_at = $5
             where project = $1 and policy = $2 and state = $3
             returning version",
        )
        .bind(named.project)
        .bind(named.policy)
        .bind(state.word())
        .bind(by)
        .bind(at)
        .fetch_optional(&mut *conn)
        .await?;
    }
    sqlx::query(
        "update policy_versions set state = $4, state_by = $5, state_at = $6
         where project = $1 and policy = $2 and version = $3",
    )
    .bind(named.project)
    .bind(named.policy)
    .bind(named.version)
    .bind(state.word())
    .bind(by)
    .bind(at)
    .execute(conn)
    .await?;
    Ok(Change::Changed { from, displaced, generation })
}

/// What judges now.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// Compare with [`super::admission::Admission::policy_generation`].
    pub generation: i64,
    /// Active and shadow versions, by policy; `state` says which.
    pub policies: Vec<PolicyVersion>,
}

#[tracing::instrument(name = "db.policy.in_force", skip_all)]
pub async fn in_force(conn: &mut PgConnection, project: &str) -> Result<InForce> {
    // The number first: a change between the two statements then shows as one refresh too many. The
    // other way round the old policies would stand under the new number, and stay.
    let generation: Option<i64> =
        sqlx::query_scalar("select generation from policy_generations where project = $1")
            .bind(project)
            .fetch_optional(&mut *conn)
            .await?;
    let rows: Vec<Row> = sqlx::query_as(
        "select * from policy_versions
         where project = $1 and state in ('active', 'shadow')
         order by policy, state",
    )
    .bind(project)
    .fetch_all(conn)
    .await?;
    let policies = rows.into_iter().map(PolicyVersion::try_from).collect::<Result<Vec<_>>>()?;
    Ok(InForce { generation: generation.unwrap_or(0), policies })
}

/// The newest 200 versions of one policy, or the newest 20 of each; those in force first within a policy.
#[tracing::instrument(name = "db.policy.versions", skip_all)]
pub async fn versions(
    conn: &mut PgConnection,
    project: &str,
    policy: Option<&str>,
) -> Result<Vec<PolicyVersion>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select * from (
             select *, row_number() over (
                 partition by policy
                 order by (state = 'active') desc, (state = 'shadow') desc, state_at desc, version
             ) as place
             from policy_versions
             where project = $1 and ($2::text is null or policy = $2)
         ) ranked
         where place <= case when $2::text is null then 20 else 200 end
         order by policy, place",
    )
    .bind(project)
    .bind(policy)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(PolicyVersion::try_from).collect()
}

#[tracing::instrument(name = "db.policy.version", skip_all, fields(policy = named.policy))]
pub async fn version(conn: &mut PgConnection, named: Named<'_>) -> Result<Option<PolicyVersion>> {
    let row: Option<Row> =
        sqlx::query_as("select * from policy_versions where project = $1 and policy = $2 and version = $3")
            .bind(named.project)
            .bind(named.policy)
            .bind(named.version)
            .fetch_optional(conn)
            .await?;
    row.map(PolicyVersion::try_from).transpose()
}

/// Projects with a version in force.
#[tracing::instrument(name = "db.policy.projects", skip_all)]
pub async fn projects(conn: &mut PgConnection) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "select distinct project from policy_versions where state in ('active', 'shadow') order by project",
    )
    .fetch_all(conn)
    .await?)
}

/// No policy of any project: the first run, which applies the shipped ones.
#[tracing::instrument(name = "db.policy.is_empty", skip_all)]
pub async fn is_empty(conn: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar("select not exists (select from policy_versions)").fetch_one(conn).await?)
}
