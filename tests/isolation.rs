//! Row-level security and the roles: what each may see and do, and what `serve` refuses to run with.

use crate::harness::{TestDatabase, World, quick, run, send, temporary};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};
use statusledger::access::scope::Role;
use statusledger::database::{Database, roles};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Tables that belong to no workspace, each with the reason.
const OF_NO_WORKSPACE: [(&str, &str); 16] = [
    ("_sqlx_migrations", "the schema's version"),
    ("identities", "people, filtered by person"),
    ("instance_facts", "the schema's version, the nodes' settings"),
    ("instance_secrets", "sealed; the instance's"),
    ("passkeys", "people, filtered by person"),
    ("sessions", "people, filtered by person"),
    ("sign_in_links", "hashes; whoever signs in is not known yet"),
    ("sign_ins", "sealed; whoever signs in is not known yet"),
    ("users", "people, filtered by person, or as members of the workspace"),
    ("instance", "names the workspace of its own events"),
    ("key_encryption_holders", "which node holds which key-encryption keys"),
    ("key_encryption_keys", "what KMS wrapped"),
    ("key_encryption_rewraps", "the replacing of key-encryption keys"),
    ("key_manifests", "the instance's keys"),
    ("nodes", "which timeline of the server each node has compared"),
    ("signing_keys", "the instance's keys"),
];

/// Tables with `workspace_id`, and the statement that counts what is seen of them.
async fn workspace_tables(superuser: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'workspace_id' AND NOT a.attisdropped
          WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname <> 'instance' ORDER BY 1",
    )
    .fetch_all(superuser)
    .await
    .unwrap()
}

/// A world with a row in every table of two workspaces.
async fn two_tenants() -> (World, [uuid::Uuid; 2]) {
    let world = World::new().await;
    let receiver = crate::harness::Receiver::of(&world).await;
    let mut ids = [uuid::Uuid::nil(); 2];
    for (i, id) in ids.iter_mut().enumerate() {
        let name = format!("tenant-{i}");
        let workspace = world.workspace(&name).await;
        let source = workspace.inbound("events").await;
        workspace.destination(&receiver, &name, serde_json::json!({})).await;
        // A tile's worth, so that tiles have rows too.
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..256 {
            let source = source.clone();
            tasks.spawn(async move { source.post_once(&n.to_string(), "an event").await.expect(202) });
        }
        tasks.join_all().await;
        receiver.taken(&name, 256).await;
        world.api.get(&workspace.at("/checkpoint")).await.expect(200);
        *id = workspace.id.uuid();
    }
    let mut superuser = world.database.superuser().await;
    for id in ids {
        // What the stores' sources write, in few words.
        for row in [
            "subjects SELECT $1, source_id, 'build', 'k', 'a', '{}', 's', now(), now(), now(), 1",
            "transitions SELECT $1, source_id, 'build', 'k', 1, 'r', 's', now(), now()",
            "store_events SELECT $1, source_id, 'e'",
            "losses SELECT $1, source_id, 1, sha256('')",
            "polls SELECT $1, source_id, 'apps', now()",
            "play_edits SELECT $1, source_id, 'a', '1'",
            "members SELECT $1, source_id, 'viewer'",
            "invitations (workspace_id, invitation_id, role, profile, hash, expires_at, email_index)
                SELECT $1, source_id, 'viewer', '', sha256($1::text::bytea), now(), sha256('')",
            "api_keys (workspace_id, key_id, name, scopes, hash, created_by)
                SELECT $1, source_id, 'k', 'read', sha256(''), 'x'",
            "self_audits SELECT $1, source_id",
            "request_keys SELECT $1, 'c', 'k', sha256(''), gen_random_uuid(), 0, now(), false, 200, '', now()",
        ] {
            sqlx::query(AssertSqlSafe(format!("INSERT INTO {row} FROM sources WHERE workspace_id = $1")))
                .bind(id)
                .execute(&mut superuser)
                .await
                .unwrap();
        }
    }
    for table in workspace_tables(&mut superuser).await {
        for id in ids {
            let count = count(&mut superuser, &table, Some(id)).await.unwrap();
            assert!(count > 0, "the test has no row of {table} to see");
        }
    }
    (world, ids)
}

async fn count(
    connection: &mut PgConnection,
    table: &str,
    of: Option<uuid::Uuid>,
) -> Result<i64, sqlx::Error> {
    let statement = format!("SELECT count(*) FROM {table} WHERE $1::uuid IS NULL OR workspace_id = $1");
    sqlx::query_scalar(AssertSqlSafe(statement)).bind(of).fetch_one(connection).await
}

#[tokio::test]
async fn the_service_sees_no_row_of_any_workspace_before_it_names_one() {
    let (world, _) = two_tenants().await;
    let mut superuser = world.database.superuser().await;
    let mut service = world.database.options(roles::SERVICE).connect().await.unwrap();
    let tables = workspace_tables(&mut superuser).await;
    assert!(tables.len() >= 14);
    for unnamed in ["RESET sl.workspace", "SET sl.workspace = ''"] {
        sqlx::query(unnamed).execute(&mut service).await.unwrap();
        for table in &tables {
            assert_eq!(count(&mut service, table, None).await.unwrap(), 0, "{table}");
        }
    }
}

#[tokio::test]
async fn with_one_workspace_named_the_service_sees_and_touches_none_of_another() {
    let (world, [first, second]) = two_tenants().await;
    let mut superuser = world.database.superuser().await;
    let mut service = world.database.options(roles::SERVICE).connect().await.unwrap();
    sqlx::query(AssertSqlSafe(format!("SET sl.workspace = '{second}'"))).execute(&mut service).await.unwrap();
    for table in workspace_tables(&mut superuser).await {
        assert!(count(&mut service, &table, None).await.unwrap() > 0, "{table}");
        assert_eq!(count(&mut service, &table, Some(first)).await.unwrap(), 0, "{table}");
        // What it may change at all, it changes nothing of there, nor brings over.
        let before = count(&mut superuser, &table, Some(first)).await.unwrap();
        for statement in [
            format!("DELETE FROM {table} WHERE workspace_id = '{first}'"),
            format!("UPDATE {table} SET workspace_id = '{second}' WHERE workspace_id = '{first}'"),
        ] {
            if let Ok(done) = sqlx::query(AssertSqlSafe(statement)).execute(&mut service).await {
                assert_eq!(done.rows_affected(), 0, "{table}");
            }
        }
        assert_eq!(count(&mut superuser, &table, Some(first)).await.unwrap(), before, "{table}");
        let insert = format!(
            "INSERT INTO {table} SELECT (jsonb_populate_record(t, jsonb_build_object('workspace_id', '{first}'))).*
               FROM {table} t LIMIT 1"
        );
        let refused = sqlx::query(AssertSqlSafe(insert)).execute(&mut service).await.unwrap_err();
        // 42501: the policy, or no grant at all.
        let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "42501", "{table}: {refused}");
    }
}

#[tokio::test]
async fn the_worker_reads_no_entry_no_opening_and_no_secret() {
    let (world, _) = two_tenants().await;
    let mut worker = world.database.options(roles::WORKER).connect().await.unwrap();
    for statement in [
        "SELECT count(*) FROM entries",
        "SELECT entry FROM entries",
        "SELECT count(*) FROM openings",
        "SELECT wrapped_key FROM data_keys",
        "SELECT private_key FROM signing_keys",
        "SELECT secret FROM destinations",
        "SELECT url FROM destinations",
        "SELECT secret FROM sources",
        "SELECT settings FROM sources",
        "SELECT name FROM sources",
        "SELECT answer FROM attempts",
        "SELECT body_hash FROM idempotency_keys",
        "SELECT description FROM subjects",
        "INSERT INTO entries SELECT * FROM entries",
        "INSERT INTO key_manifests VALUES (99, '')",
        "UPDATE heads SET size = 0",
        "UPDATE deliveries SET seq = 0",
        "SELECT ledger_append(NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL)",
    ] {
        let refused = sqlx::query(statement).execute(&mut worker).await.unwrap_err();
        let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "42501", "{statement}: {refused}");
    }
}

#[tokio::test]
async fn nobody_but_a_superuser_without_triggers_changes_an_entry() {
    let (world, [first, _]) = two_tenants().await;
    let statements = [
        "UPDATE entries SET entry = '{}'",
        "UPDATE entries SET seq = seq WHERE false",
        "DELETE FROM entries",
        "TRUNCATE entries",
    ];
    let set = AssertSqlSafe(format!("SET sl.workspace = '{first}'"));
    let mut service = world.database.options(roles::SERVICE).connect().await.unwrap();
    sqlx::query(set).execute(&mut service).await.unwrap();
    // The owner and the superuser hold the privilege; the trigger refuses them.
    for (mut connection, code) in [
        (service, "42501"),
        (world.database.options(roles::OWNER).connect().await.unwrap(), "SL010"),
        (world.database.superuser().await, "SL010"),
    ] {
        for statement in statements {
            let refused = sqlx::query(statement).execute(&mut connection).await.unwrap_err();
            let found = refused.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(found, code, "{statement}: {refused}");
        }
    }
}

#[tokio::test]
async fn every_table_of_a_workspace_is_filtered_and_begins_its_keys_with_the_workspace() {
    let database = TestDatabase::create().await;
    let mut superuser = database.superuser().await;
    let rows = sqlx::query(
        "SELECT c.relname::text AS name, c.relrowsecurity AND c.relforcerowsecurity AS filtered,
                EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'workspace_id') AS owned,
                (SELECT a.attname::text FROM pg_constraint k JOIN pg_attribute a
                     ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
                  WHERE k.conrelid = c.oid AND k.contype = 'p') AS first_key,
                (SELECT count(*) FROM pg_constraint k JOIN pg_attribute a
                     ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
                  WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attname <> 'workspace_id') AS loose,
                ARRAY(SELECT coalesce(pg_get_expr(p.polqual, p.polrelid), '') FROM pg_policy p
                       WHERE p.polrelid = c.oid AND 'statusledger_service'::regrole = ANY (p.polroles)) AS service,
                EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND 0 = ANY (p.polroles)) AS public
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') ORDER BY 1",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    let exempt = BTreeMap::from(OF_NO_WORKSPACE);
    let mut names = Vec::new();
    for row in &rows {
        let name: String = row.get("name");
        names.push(name.clone());
        if exempt.contains_key(name.as_str()) {
            continue;
        }
        assert!(row.get::<bool, _>("owned"), "{name} has no workspace_id");
        assert!(row.get::<bool, _>("filtered"), "{name} has no forced row-level security");
        assert_eq!(row.get::<String, _>("first_key"), "workspace_id", "{name}");
        assert_eq!(row.get::<i64, _>("loose"), 0, "{name} has a foreign key that leaves the workspace");
        let policies: Vec<String> = row.get("service");
        // Those that a person has a part in, and every one for who administers the instance: rows of one table, and the
        // first of them only where no workspace is named.
        let (of_a_workspace, others): (Vec<&String>, Vec<&String>) = policies
            .iter()
            .partition(|p| p.starts_with("(workspace_id = ( SELECT") && p.contains("'sl.workspace'"));
        assert_eq!(of_a_workspace.len(), 1, "{name}: {policies:?}");
        let allowed = match name.as_str() {
            "members" => 1,
            "workspaces" => 2,
            _ => 0,
        };
        assert_eq!(others.len(), allowed, "{name}: {policies:?}");
        for policy in others {
            let of_a_person = policy.contains("'sl.user'")
                && policy.contains("'sl.workspace'")
                && policy.contains("IS NULL");
            assert!(of_a_person || policy.contains("'sl.workspaces'"), "{name}: {policy}");
        }
        assert!(!row.get::<bool, _>("public"), "{name} has a policy for everybody");
    }
    let filtered = rows.iter().filter(|row| row.get::<bool, _>("filtered"));
    assert_eq!(filtered.map(|row| row.get::<String, _>("name")).collect::<Vec<_>>(), roles::FILTERED);
    for (name, _) in OF_NO_WORKSPACE {
        assert!(names.contains(&name.to_owned()), "{name} is exempt but does not exist");
    }
    // Views and functions that run as their owner would go around all of that.
    let around: Vec<String> = sqlx::query_scalar(
        "SELECT proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
          WHERE n.nspname = 'public' AND p.prosecdef
         UNION SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = 'public' AND c.relkind IN ('v', 'm')",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert_eq!(around, Vec::<String>::new());
}

/// Runs `statements` as the superuser in the database that is named.
async fn as_superuser(database: &TestDatabase, statements: &[String]) {
    let mut superuser = database.superuser().await;
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement.as_str())).execute(&mut superuser).await.unwrap();
    }
}

/// Why the pools do not open with these roles.
async fn refusal(database: &TestDatabase, service: &str, worker: &str) -> String {
    let opened = Database::open(database.options(service), database.options(worker), 2).await;
    opened.map(drop).unwrap_err().to_string()
}

#[tokio::test]
async fn serving_is_refused_with_a_role_that_may_do_too_much() {
    let database = TestDatabase::create().await;
    // Roles belong to the whole cluster: these are this test's own.
    let role = |what: &str| format!("{}_{what}", database.name);
    let (bypass, member, updates, column, reads) =
        (role("bypass"), role("member"), role("updates"), role("col"), role("reads"));
    as_superuser(
        &database,
        &[
            format!("CREATE ROLE {bypass} LOGIN BYPASSRLS IN ROLE {}", roles::SERVICE),
            format!("CREATE ROLE {member} LOGIN IN ROLE {}, {}", roles::SERVICE, roles::OWNER),
            format!("CREATE ROLE {updates} LOGIN IN ROLE {}", roles::SERVICE),
            format!("GRANT DELETE ON entries TO {updates}"),
            format!("CREATE ROLE {column} LOGIN IN ROLE {}", roles::SERVICE),
            format!("GRANT UPDATE (type) ON entries TO {column}"),
            format!("CREATE ROLE {reads} LOGIN IN ROLE {}", roles::WORKER),
            format!("GRANT SELECT (type) ON entries TO {reads}"),
        ],
    )
    .await;
    let (service, worker) = (roles::SERVICE, roles::WORKER);
    for (one, other, why) in [
        ("postgres", worker, "is a superuser"),
        (roles::OWNER, worker, "owns tables"),
        (&bypass, worker, "can bypass row-level security"),
        (&member, worker, "owns tables"),
        (&updates, worker, "may update or delete entries"),
        (&column, worker, "may update or delete entries"),
        (service, "postgres", "is a superuser"),
        (service, roles::OWNER, "owns tables"),
        (service, service, "entries"),
        (service, &reads, "entries"),
    ] {
        let told = refusal(&database, one, other).await;
        assert!(told.contains(why), "{one}, {other}: {told}");
    }
    Database::open(database.options(service), database.options(worker), 2).await.unwrap();
    // The command says the same, and serves nothing.
    let directory = temporary("refused");
    let (url, worker_url) = (database.url(roles::OWNER), database.url(worker));
    let arguments =
        ["serve", "--data-dir", ".", "--database-url", &url, "--worker-database-url", &worker_url];
    let output = run(&directory, &arguments, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("owns tables"), "{output:?}");
    let dropped = [bypass, member, updates, column, reads];
    let mut statements: Vec<String> = dropped.iter().map(|r| format!("DROP OWNED BY {r}")).collect();
    statements.extend(dropped.iter().map(|r| format!("DROP ROLE {r}")));
    as_superuser(&database, &statements).await;
}

#[tokio::test]
async fn an_operators_server_is_migrated_once_and_served() {
    let database = TestDatabase::create().await;
    let directory = temporary("operator");
    let mut superuser = database.superuser().await;
    // As a new database has it.
    for statement in
        ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public", "GRANT USAGE ON SCHEMA public TO PUBLIC"]
    {
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }
    let own = format!("ALTER SCHEMA public OWNER TO {}", roles::OWNER);
    sqlx::query(AssertSqlSafe(own)).execute(&mut superuser).await.unwrap();
    superuser.close().await.unwrap();
    let [service, worker, owner] =
        [roles::SERVICE, roles::WORKER, roles::OWNER].map(|role| database.url(role));
    let serve = ["serve", "--data-dir", ".", "--port", "0", "--database-url", &service];
    let told = run(&directory, &[&serve[..], &["--worker-database-url", &worker]].concat(), &[]).await;
    assert!(String::from_utf8_lossy(&told.stderr).contains("run `statusledger migrate"), "{told:?}");
    for _ in 0..2 {
        let migrated = run(&directory, &["migrate", "--owner-database-url", &owner], &[]).await;
        assert!(migrated.status.success(), "{migrated:?}");
    }
    let node =
        statusledger::node::Node::start(&quick(&directory), None, database.open().await).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn serving_is_refused_where_row_level_security_is_off() {
    let database = TestDatabase::create().await;
    for table in roles::FILTERED {
        for (off, on) in [
            ("DISABLE ROW LEVEL SECURITY", "ENABLE ROW LEVEL SECURITY"),
            ("NO FORCE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY"),
        ] {
            as_superuser(&database, &[format!("ALTER TABLE {table} {off}")]).await;
            let told = refusal(&database, roles::SERVICE, roles::WORKER).await;
            assert!(told.contains(&format!("apart in: {table};")), "{table} {off}: {told}");
            as_superuser(&database, &[format!("ALTER TABLE {table} {on}")]).await;
        }
    }
    as_superuser(&database, &["CREATE POLICY everybody ON heads USING (true)".to_owned()]).await;
    assert!(refusal(&database, roles::SERVICE, roles::WORKER).await.contains("apart in: heads;"));
    as_superuser(&database, &["DROP POLICY everybody ON heads".to_owned()]).await;
    Database::open(database.options(roles::SERVICE), database.options(roles::WORKER), 2).await.unwrap();
}

/// What the worker may read, by table; everything of one where nothing else is said. Nothing that a person or a store
/// said, and no name: what is added here is seen across workspaces, if a condition is forgotten.
const READ_ACROSS: [(&str, &str); 19] = [
    ("api_keys", "expires_at hash instance key_id last_used_at person revoked_at scopes workspace_id"),
    ("attempts", "attempt destination_id number workspace_id"),
    ("checkpoints", "*"),
    ("deliveries", "*"),
    ("heads", "*"),
    ("idempotency_keys", "expires_at key source_id workspace_id"),
    ("identities", "*"),
    (
        "invitations",
        "accepted_at claimed_by expires_at hash invitation_id invited_by invited_key revoked_at role workspace_id",
    ),
    ("lanes", "*"),
    ("losses", "*"),
    ("members", "created_at role user_id workspace_id"),
    ("passkeys", "credential_index passkey_id provider_since user_id"),
    ("request_keys", "caller expires_at key workspace_id"),
    ("self_audits", "*"),
    ("sessions", "created_at ended_at expires_at hash last_seen_at method passkey_id session_id user_id"),
    (
        "sources",
        "deleted_at health kind lease_holder leased_until next_poll_at source_id token_hash workspace_id",
    ),
    ("store_events", "event_id received_at source_id workspace_id"),
    ("users", "disabled_at email_index user_id"),
    (
        "workspaces",
        "created_at delete_after deleted_at ledger_id passkey_required passkey_required_at workspace_id",
    ),
];

#[tokio::test]
async fn what_the_worker_may_read_is_listed_and_has_no_name() {
    let database = TestDatabase::create().await;
    let mut superuser = database.superuser().await;
    let mut found = BTreeMap::new();
    for table in roles::FILTERED {
        let (columns, all): (Vec<String>, i64) = sqlx::query_as(
            "SELECT coalesce(array_agg(a.attname::text ORDER BY a.attname)
                      FILTER (WHERE has_column_privilege($2, c.oid, a.attnum, 'SELECT')), '{}'), count(*)
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              WHERE c.oid = ('public.' || $1)::regclass",
        )
        .bind(table)
        .bind(roles::WORKER)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
        if columns.len() as i64 == all {
            found.insert(table.to_owned(), "*".to_owned());
        } else if !columns.is_empty() {
            found.insert(table.to_owned(), columns.join(" "));
        }
    }
    let listed: BTreeMap<_, _> =
        READ_ACROSS.into_iter().map(|(table, columns)| (table.to_owned(), columns.to_owned())).collect();
    assert_eq!(found, listed);
}

/// As which roles the code sends each statement, by its text without white space: where a macro's text is followed by a
/// call on the worker's pool, the worker; else the service.
fn senders() -> BTreeMap<String, BTreeSet<&'static str>> {
    fn files(directory: &Path, into: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let mut sources = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    let mut senders: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for source in sources {
        let text = std::fs::read_to_string(&source).unwrap();
        let mut rest = text.as_str();
        while let Some(at) = rest.find("sqlx::query") {
            rest = &rest[at..];
            let Some(quote) = rest.find('"') else { break };
            let (end, raw) = if rest[..quote].ends_with("r#") { ("\"#", true) } else { ("\"", false) };
            let Some(length) = rest[quote + 1..].find(end) else { break };
            let statement = &rest[quote + 1..quote + 1 + length];
            rest = &rest[quote + 1 + length..];
            let next = rest.find("sqlx::query").unwrap_or(rest.len());
            let called =
                [".fetch_", ".execute(", ".fetch("].iter().filter_map(|call| rest[..next].find(call)).min();
            let by = called.and_then(|at| rest[at..].split_once('(')).map_or("", |(_, by)| by);
            let by = by.split(')').next().unwrap();
            let statement = if raw { statement.to_owned() } else { statement.replace("\\\n", " ") };
            assert!(raw || !statement.contains('\\'), "{}: {statement}", source.display());
            let role = if by.contains("worker") { roles::WORKER } else { roles::SERVICE };
            senders.entry(flat(&statement)).or_default().insert(role);
        }
    }
    senders
}

fn flat(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a statement's `$n` is replaced by where nothing depends on its value.
fn null_of(kind: &Value) -> String {
    let name = kind.as_str().unwrap_or("Text");
    let (name, array) = match name.strip_suffix("Array") {
        Some(name) => (name, "[]"),
        None => (name, ""),
    };
    format!("NULL::{}{array}", name.to_lowercase())
}

/// The statement without its conditions: each WHERE, up to what follows it at the same depth of parentheses, becomes
/// `WHERE true`; each LIMIT is dropped; parameters become nulls of their type.
fn without_conditions(statement: &str, parameters: &[Value]) -> String {
    const ENDS: [&str; 8] =
        ["ORDER BY ", "GROUP BY ", "LIMIT ", "FOR ", "RETURNING ", "UNION ", "ON CONFLICT", "WINDOW "];
    let flat = statement.split_whitespace().collect::<Vec<_>>().join(" ") + " ";
    let (mut out, mut depth, mut at) = (String::new(), 0_i32, 0);
    let mut skipping: Option<i32> = None;
    while at < flat.len() {
        let rest = &flat[at..];
        let word = at == 0 || !flat.as_bytes()[at - 1].is_ascii_alphanumeric();
        if let Some(of) = skipping {
            let closes = rest.starts_with(')') && depth == of;
            if closes || depth == of && word && ENDS.iter().any(|end| rest.starts_with(end)) {
                skipping = None;
                continue;
            }
        } else if word && rest.starts_with("WHERE ") {
            out.push_str("WHERE true ");
            skipping = Some(depth);
            at += "WHERE ".len();
            continue;
        } else if word && rest.starts_with("LIMIT ") {
            // Up to the next word but one.
            at += "LIMIT ".len();
            at += flat[at..].find([' ', ')']).unwrap_or(0);
            continue;
        }
        let character = rest.chars().next().unwrap();
        depth += i32::from(character == '(') - i32::from(character == ')');
        if skipping.is_none() {
            out.push(character);
        }
        at += character.len_utf8();
    }
    for (number, kind) in parameters.iter().enumerate().rev() {
        out = out.replace(&format!("${}", number + 1), &null_of(kind));
    }
    out
}

/// Every statement of the service, with every condition taken out of it, run in a workspace that has nothing while two
/// others have rows in every table: row-level security alone has to hide them. What the worker sends is run as the
/// worker, who may; what it may read at all is listed above.
#[tokio::test]
async fn without_any_of_its_conditions_the_service_still_sees_nothing_of_another_workspace() {
    let (world, _) = two_tenants().await;
    let mut superuser = world.database.superuser().await;
    let mut service = world.database.options(roles::SERVICE).connect().await.unwrap();
    let mut worker = world.database.options(roles::WORKER).connect().await.unwrap();
    let (senders, mut across) = (senders(), 0);
    let empty = uuid::Uuid::now_v7();
    sqlx::query(AssertSqlSafe(format!("SET sl.workspace = '{empty}'"))).execute(&mut service).await.unwrap();
    let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let exempt: Vec<&str> = OF_NO_WORKSPACE.iter().map(|(name, _)| *name).collect();
    let mut filtered = workspace_tables(&mut superuser).await;
    filtered.extend(["users", "identities", "passkeys", "sessions"].map(String::from));
    let (mut effective, mut hidden, mut changes, mut skipped) = (0, 0, 0, Vec::new());
    for file in files {
        let described: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let statement = described["query"].as_str().unwrap();
        let verb = statement.split_whitespace().next().unwrap().to_uppercase();
        let parameters = described["describe"]["parameters"]["Left"].as_array().unwrap();
        let bare = without_conditions(statement, parameters);
        // What the tests and benches ask is not looked at.
        let Some(sent_by) = senders.get(&flat(statement)) else { continue };
        if sent_by.contains(roles::WORKER) {
            let explained = format!("EXPLAIN {bare}");
            let may = sqlx::query(AssertSqlSafe(explained.as_str())).execute(&mut worker).await;
            assert!(may.is_ok() || verb == "LISTEN", "{bare}: {may:?}");
            across += 1;
        }
        if !sent_by.contains(roles::SERVICE) {
            continue;
        }
        let begins = sqlx::query("BEGIN").execute(&mut service).await.map(drop);
        begins.unwrap();
        if matches!(verb.as_str(), "UPDATE" | "DELETE") {
            match sqlx::query(AssertSqlSafe(bare.as_str())).execute(&mut service).await {
                Ok(done) => {
                    let of_nobody = exempt.iter().any(|table| bare.contains(&format!(" {table} ")));
                    assert!(done.rows_affected() == 0 || of_nobody, "{bare}");
                    changes += 1;
                }
                Err(e) => skipped.push((bare, e.to_string())),
            }
        } else if verb == "SELECT" || verb == "WITH" && !statement.contains("INSERT") {
            let counted = format!("SELECT count(*) FROM ({bare}) q, LATERAL (SELECT to_jsonb(q) AS j) r
                WHERE EXISTS (SELECT FROM jsonb_each(j) m WHERE m.value NOT IN ('null', '0', 'false', '[]', '\"\"'))");
            let by_all: Result<i64, _> =
                sqlx::query_scalar(AssertSqlSafe(counted.clone())).fetch_one(&mut superuser).await;
            let seen: Result<i64, _> =
                sqlx::query_scalar(AssertSqlSafe(counted)).fetch_one(&mut service).await;
            match (by_all, seen) {
                (Ok(all), Ok(seen)) => {
                    let tables = bare.split_whitespace().collect::<Vec<_>>();
                    let named = tables
                        .windows(2)
                        .filter(|pair| matches!(pair[0], "FROM" | "JOIN"))
                        .map(|pair| pair[1].trim_end_matches([',', ')']));
                    if named.into_iter().any(|table| filtered.iter().any(|f| f == table)) {
                        assert_eq!(seen, 0, "seen of another's: {bare}");
                        effective += usize::from(all > 0);
                        hidden += 1;
                    }
                }
                (_, Err(e)) | (Err(e), _) => skipped.push((bare, e.to_string())),
            }
        }
        sqlx::query("ROLLBACK").execute(&mut service).await.unwrap();
    }
    assert!(
        effective > 40 && changes > 20 && across > 20,
        "{effective} of {hidden} would have seen something; {changes} changes; {across} by the worker"
    );
    assert!(skipped.len() < 10, "{skipped:#?}");
}

#[tokio::test]
async fn a_list_of_workspaces_shows_whose_they_are_with_nothing_but_row_level_security() {
    let (world, [first, second]) = two_tenants().await;
    let person = world.person("ana@example.com", &[(first.into(), Role::Viewer)]).await;
    world.person("ben@example.com", &[(second.into(), Role::Owner)]).await;
    let mut service = world.database.options(roles::SERVICE).connect().await.unwrap();
    let everything = "SELECT workspace_id FROM workspaces ORDER BY created_at, workspace_id";
    // What the transaction is about decides, not a condition.
    for (settings, seen) in [
        (vec![("sl.user", person.id.uuid().to_string())], vec![first]),
        (vec![("sl.workspace", second.to_string())], vec![second]),
        (vec![("sl.user", person.id.uuid().to_string()), ("sl.workspace", second.to_string())], vec![second]),
        (vec![("sl.user", uuid::Uuid::now_v7().to_string())], vec![]),
        (vec![], vec![]),
    ] {
        let mut tx = service.begin().await.unwrap();
        for (name, value) in &settings {
            let set = sqlx::query("SELECT set_config($1, $2, true)").bind(*name).bind(value);
            set.execute(&mut *tx).await.unwrap();
        }
        let rows: Vec<uuid::Uuid> = sqlx::query_scalar(everything).fetch_all(&mut *tx).await.unwrap();
        assert_eq!(rows, seen, "{settings:?}");
        let memberships: Vec<uuid::Uuid> =
            sqlx::query_scalar("SELECT workspace_id FROM members").fetch_all(&mut *tx).await.unwrap();
        assert!(memberships.iter().all(|id| seen.contains(id)), "{settings:?}");
        tx.rollback().await.unwrap();
    }
    let mut worker = world.database.options(roles::WORKER).connect().await.unwrap();
    let refused = sqlx::query("SELECT name FROM workspaces").execute(&mut worker).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501");
    // And so the routes: a session's, a key's, and one that reaches all.
    let listed = |request: reqwest::RequestBuilder| async {
        let answer = send(request).await.expect(200).json();
        let items = answer["items"].as_array().unwrap().clone();
        items.iter().map(|w| w["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let of = world.api.bare("GET", "/v1/workspaces").header("cookie", &person.cookie);
    assert_eq!(listed(of).await, ["tenant-0"]);
    let path = format!("/v1/workspaces/ws_{second}/keys");
    let made = world.api.post(&path, json!({ "name": "k", "scopes": ["read"] })).await.expect(201).json();
    let of = world.api.bare("GET", "/v1/workspaces").bearer_auth(made["token"].as_str().unwrap());
    assert_eq!(listed(of).await, ["tenant-1"]);
    assert_eq!(listed(world.api.request("GET", "/v1/workspaces")).await.len(), 3);
    // Their names are nobody's alone.
    world.api.patch(&format!("/v1/workspaces/ws_{second}"), json!({ "name": "tenant-0" })).await.expect(200);
    world.workspace("tenant-0").await;
}
