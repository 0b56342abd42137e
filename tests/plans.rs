//! Plans that Postgres made while tables were small, and keeps.
//!
//! Until it analyzes a table, a connection goes on with the plan that it made for one with two rows. Of statements over many
//! lanes or deliveries that plan must be one by keys, or the first burst pays for it.

use crate::harness::TestDatabase;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use statusledger::database::roles;
use uuid::Uuid;

/// The node that holds all of them.
const NODE: &str = "'00000000-0000-0000-0000-000000000001'::uuid";
/// Those that a statement names of those that there are.
const NAMED: i64 = 40;
/// How many there are in the end.
const MANY: i64 = 4_000;

/// The table of which they read most, and statements as the lanes' node makes them, of the workspaces `$1` and destinations
/// `$2`, `$3` in number.
const STATEMENTS: &[(&str, &str)] = &[
    ("lanes", "SELECT lanes_renew(NODE, $1, $2)"),
    ("lanes", "SELECT count(*) FROM lanes_held(NODE, $1, $2)"),
    (
        "lanes",
        "SELECT count(*) FROM lanes_advance(NODE, $1, $2, array_fill(1::bigint, $3), array_fill(1::bigint, $3),
                array_fill(null::timestamptz, $3), null, null)",
    ),
    (
        "deliveries",
        "SELECT count(*) FROM attempts_record(NODE, $1, $2, array_fill(1::bigint, $3), array_fill(1::bigint, $3),
                array_fill(1, $3), array_fill(now(), $3), array_fill(1::bigint, $3), array_fill(204, $3),
                array_fill(null::text, $3), array_fill(null::bytea, $3), array_fill(null::timestamptz, $3),
                array_fill(null::bytea, $3), array_fill(null::bytea, $3), null, null)",
    ),
    ("lanes", "SELECT count(lanes_release(w, d, NODE, 1)) FROM unnest($1::uuid[], $2::uuid[]) AS u (w, d)"),
];

/// Lanes from `first` on, each with a delivery that waits, held by [`NODE`].
async fn fill(owner: &mut PgConnection, first: i64, last: i64) {
    let id = "lpad(to_hex(n), 32, '0')::uuid";
    for statement in [
        // Rows that nothing refers to: what they belong to is of no account to a plan.
        "SET session_replication_role = replica".to_owned(),
        format!(
            "INSERT INTO lanes (workspace_id, destination_id, last_number, holder, fence, leased_until)
             SELECT {id}, {id}, 1, {NODE}, 1, now() + interval '1 hour' FROM generate_series({first}, {last}) AS n"
        ),
        format!(
            "INSERT INTO deliveries (workspace_id, destination_id, number, ledger_id, seq, receipt_id, issued_at,
                                     tree_size, receipt_key, checkpoint_key)
             SELECT {id}, {id}, 1, {id}, 1, {id}, 1, 1, '', '' FROM generate_series({first}, {last}) AS n"
        ),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *owner).await.unwrap();
    }
}

/// Rows of `table` that this connection has read and Postgres has not counted elsewhere; within a transaction it counts nowhere
/// else.
async fn read(worker: &mut PgConnection, table: &str) -> i64 {
    sqlx::query_scalar("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = $1")
        .bind(table)
        .fetch_one(worker)
        .await
        .unwrap()
}

/// Makes a statement of the lanes from `first` to `last`.
async fn call(worker: &mut PgConnection, statement: &str, first: i64, last: i64) {
    let ids: Vec<Uuid> = (first..=last).map(|n| Uuid::from_u128(n as u128)).collect();
    let statement = statement.replace("NODE", NODE);
    let size = vec![i32::try_from(ids.len()).unwrap()];
    sqlx::query(AssertSqlSafe(statement)).bind(&ids).bind(&ids).bind(size).execute(worker).await.unwrap();
}

#[tokio::test]
async fn what_was_planned_for_a_few_lanes_reads_no_more_of_thousands() {
    for few in [1, 2, 30] {
        let database = TestDatabase::create().await;
        let mut owner = database.superuser().await;
        fill(&mut owner, 1, few).await;
        // What Postgres thinks of them when it plans.
        for table in ["lanes", "deliveries"] {
            // A table of deliveries has been too small to be analyzed by itself until some dozen had come.
            if table == "lanes" || few > 2 {
                sqlx::query(AssertSqlSafe(format!("ANALYZE {table}"))).execute(&mut owner).await.unwrap();
            }
        }
        let mut worker = PgConnection::connect_with(&database.options(roles::WORKER)).await.unwrap();
        for _ in 0..7 {
            for (_, statement) in STATEMENTS {
                call(&mut worker, statement, 1, few).await;
            }
        }
        fill(&mut owner, few + 1, MANY).await;
        for (table, statement) in STATEMENTS {
            let mut tx = worker.begin().await.unwrap();
            let before = read(&mut tx, table).await;
            // Of those that came since: they have no older versions to be read.
            call(&mut tx, statement, few + 1, few + NAMED).await;
            let rows = read(&mut tx, table).await - before;
            tx.commit().await.unwrap();
            // Each is looked up to be locked and to be written, and the statements before this left a version each.
            assert!(
                (NAMED..=NAMED * 12).contains(&rows),
                "planned for {few} lanes, of {MANY}: {rows} rows of {table} read by {statement}"
            );
        }
    }
}
