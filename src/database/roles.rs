//! The three roles, and the refusal to serve with one that may do too much.

use super::Error;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, PgConnection};

/// The role that serves: one workspace at a time.
pub const SERVICE: &str = "statusledger_service";
/// The role that works across workspaces and reads no entry.
pub const WORKER: &str = "statusledger_worker";
/// The role that owns the tables (embedded cluster; an operator's may have any name).
pub const OWNER: &str = "statusledger_owner";

/// Makes the two restricted roles where they are missing. Roles belong to the whole server, so two databases that
/// migrate at once can meet here; whoever comes second finds the role made.
///
/// # Errors
/// If a role is missing and the owner may not create it.
pub async fn ensure(owner: &mut PgConnection) -> Result<(), Error> {
    for role in [SERVICE, WORKER] {
        let exists = sqlx::query_scalar!("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role)
            .fetch_one(&mut *owner)
            .await?;
        if exists == Some(true) {
            continue;
        }
        // The name is a constant of this file.
        let made = sqlx::query(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN"))).execute(&mut *owner).await;
        match made {
            Ok(_) => {}
            Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42710" | "23505")) => {}
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42501") => {
                return Err(Error::Refused(format!(
                    "the role {role} is missing and this owner may not create it; run as a superuser: CREATE ROLE {role} LOGIN"
                )));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Refuses a server that is too old, may lose a commit, or has another schema than this program's.
///
/// # Errors
/// Names the setting and what to do.
pub async fn check_server(pool: &PgPool) -> Result<(), Error> {
    let row = sqlx::query!(
        r#"SELECT current_setting('server_version_num')::int AS "version!",
                  to_regclass('public._sqlx_migrations') IS NOT NULL AS "migrated!""#
    )
    .fetch_one(pool)
    .await?;
    if row.version < super::OLDEST_VERSION {
        return Err(Error::Refused(format!(
            "the database server is version {}.{}, and 15 or newer is needed",
            row.version / 10_000,
            row.version % 10_000
        )));
    }
    let mut connection = pool.acquire().await?;
    super::embedded::check_durability(&mut connection).await.map_err(|e| Error::Refused(e.to_string()))?;
    drop(connection);
    if row.migrated {
        let applied =
            sqlx::query_scalar!(r#"SELECT max(version) AS "version" FROM _sqlx_migrations WHERE success"#)
                .fetch_one(pool)
                .await?
                .unwrap_or_default();
        let ours = super::MIGRATIONS.iter().map(|m| m.version).max().unwrap_or_default();
        if applied != ours {
            return Err(Error::Refused(format!(
                "the database has schema version {applied}, and this program needs {ours}; \
                 run `statusledger migrate --owner-database-url URL` of the same version"
            )));
        }
    } else {
        return Err(Error::Refused(
            "the database has no statusledger tables; run `statusledger migrate --owner-database-url URL` first".into(),
        ));
    }
    Ok(())
}

/// The tables whose rows are filtered by row-level security: by workspace, or by person.
pub const FILTERED: [&str; 29] = [
    "api_keys",
    "attempts",
    "audit_index",
    "checkpoints",
    "data_keys",
    "deliveries",
    "destinations",
    "entries",
    "heads",
    "idempotency_keys",
    "identities",
    "invitations",
    "lanes",
    "losses",
    "members",
    "openings",
    "passkeys",
    "play_edits",
    "polls",
    "request_keys",
    "self_audits",
    "sessions",
    "sources",
    "store_events",
    "subjects",
    "tiles",
    "transitions",
    "users",
    "workspaces",
];

/// Refuses a database in which row-level security was switched off, or made to let everybody through.
///
/// # Errors
/// Names the tables and what to do.
pub async fn check_filters(pool: &PgPool) -> Result<(), Error> {
    let open = sqlx::query_scalar!(
        r#"SELECT t AS "table!" FROM unnest($1::text[]) AS t
            WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                               WHERE n.nspname = 'public' AND c.relname = t
                                 AND c.relrowsecurity AND c.relforcerowsecurity)
               OR EXISTS (SELECT FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
                            JOIN pg_namespace n ON n.oid = c.relnamespace
                           WHERE n.nspname = 'public' AND c.relname = t AND 0 = ANY (p.polroles))
            ORDER BY t"#,
        &FILTERED.map(str::to_owned)[..]
    )
    .fetch_all(pool)
    .await?;
    if open.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "row-level security does not keep workspaces apart in: {}; as the owner, ALTER TABLE … ENABLE ROW LEVEL SECURITY \
         and FORCE ROW LEVEL SECURITY, and drop policies for PUBLIC",
        open.join(", ")
    )))
}

/// What a role could do that it must not.
async fn powers(pool: &PgPool) -> Result<(String, Vec<String>), Error> {
    let row = sqlx::query!(
        r#"SELECT current_user AS "name!", session_user AS "session!",
                  (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS "superuser!",
                  (SELECT bool_or(rolsuper OR rolbypassrls) FROM pg_roles
                    WHERE pg_has_role(session_user, oid, 'MEMBER')) AS "bypass!",
                  EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                           WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
                             AND pg_has_role(session_user, c.relowner, 'MEMBER')) AS "owner!",
                  EXISTS (SELECT FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS p
                           WHERE has_table_privilege('public.entries', p)
                              OR p = 'UPDATE' AND has_any_column_privilege('public.entries', p)) AS "rewrites!""#
    )
    .fetch_one(pool)
    .await?;
    let mut found = Vec::new();
    if row.superuser {
        found.push("is a superuser".into());
    } else if row.bypass {
        found.push("can bypass row-level security".into());
    }
    if row.owner {
        found.push("owns tables".into());
    }
    if row.rewrites {
        found.push("may update or delete entries".into());
    }
    if row.name != row.session {
        found.push(format!("is a mask of {}, which may be more", row.session));
    }
    Ok((row.name, found))
}

/// Refuses a service role that owns tables, is superuser, bypasses row-level security or may change entries.
///
/// # Errors
/// Names the role and what it may do.
pub async fn check_service(pool: &PgPool) -> Result<(), Error> {
    let (name, found) = powers(pool).await?;
    refuse("service", &name, &found, SERVICE)
}

/// Refuses a worker role that may do any of that, or read entries.
///
/// # Errors
/// Names the role and what it may do.
pub async fn check_worker(pool: &PgPool) -> Result<(), Error> {
    let (name, mut found) = powers(pool).await?;
    let reads = sqlx::query_scalar!(
        r#"SELECT has_any_column_privilege('public.entries', 'SELECT')
               OR has_any_column_privilege('public.openings', 'SELECT') AS "reads!""#
    )
    .fetch_one(pool)
    .await?;
    if reads {
        found.push("may read entries".into());
    }
    refuse("worker", &name, &found, WORKER)
}

fn refuse(part: &str, name: &str, found: &[String], right: &str) -> Result<(), Error> {
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "the {part}'s database role {name} {}; use {right}, which `statusledger migrate` makes",
        found.join(" and ")
    )))
}
