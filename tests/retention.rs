//! What is kept only so long: by the operator's policy, and of what has ended.

use crate::harness::{Receiver, World, eventually};
use serde_json::json;
use sqlx::AssertSqlSafe;
use statusledger::access::ended;
use statusledger::access::scope::Role;
use statusledger::config::RetentionSettings;
use statusledger::retention;
use time::OffsetDateTime;

async fn count(world: &World, of: &str) -> i64 {
    let statement = format!("SELECT count(*) FROM {of}");
    let mut superuser = world.database.superuser().await;
    sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut superuser).await.unwrap()
}

#[tokio::test]
async fn what_is_older_than_the_policy_is_deleted_with_an_entry_and_entries_stay() {
    let world = World::new().await;
    let workspace = world.workspace("kept").await;
    let receiver = Receiver::of(&world).await;
    let source = workspace.inbound("events").await;
    let hears = json!({ "filter": { "types": ["event.received"] } });
    let destination = workspace.destination(&receiver, "hook", hears).await;
    for n in 0..3 {
        source.event(format!("event {n}")).await;
    }
    receiver.taken("hook", 3).await;
    destination.settled(3, "delivered").await;
    let opened = format!("openings WHERE workspace_id = '{}'", workspace.id.uuid());
    let before = workspace.entries().await;
    assert!(count(&world, &opened).await > 0);
    let writer = &world.node().writer;
    let now = OffsetDateTime::now_utc();
    let policy =
        RetentionSettings { attempts_days: Some(30), deliveries_days: Some(90), openings_days: Some(365) };
    // Nothing is as old as that, and nothing is written; nor by no policy, however old it is.
    retention::apply(writer, &policy, now).await.unwrap();
    let much_later = now + time::Duration::days(9999);
    retention::apply(writer, &RetentionSettings::default(), much_later).await.unwrap();
    assert_eq!(workspace.entries().await.len(), before.len());
    assert_eq!((count(&world, "deliveries").await, count(&world, "attempts").await), (3, 3));
    // After a month the attempts go, after three the deliveries.
    retention::apply(writer, &policy, now + time::Duration::days(31)).await.unwrap();
    assert_eq!((count(&world, "deliveries").await, count(&world, "attempts").await), (3, 0));
    world.assert_whole(&[]).await;
    retention::apply(writer, &policy, now + time::Duration::days(91)).await.unwrap();
    assert_eq!(count(&world, "deliveries").await, 0);
    assert!(count(&world, &opened).await > 0);
    world.assert_whole(&[&workspace]).await;
    // Numbers go on where they were.
    source.event("another").await;
    receiver.taken("hook", 4).await;
    eventually("the new delivery", || async {
        let deliveries = destination.deliveries().await;
        let only = deliveries.first().filter(|d| d["state"] == "delivered")?;
        (only["number"] == 4 && deliveries.len() == 1).then_some(())
    })
    .await;
    world.assert_whole(&[&workspace]).await;
    retention::apply(writer, &policy, now + time::Duration::days(366)).await.unwrap();
    assert_eq!(count(&world, "openings").await, 0, "of the instance's own ledger, too");
    let entries = workspace.entries().await;
    assert_eq!(entries[..before.len()], before, "entries stay as they are");
    let applied = workspace.entries_of("audit.retention.applied").await;
    let said: Vec<_> = applied.iter().map(|e| &e["data"]["details"]).collect();
    assert_eq!((&said[0]["attempts"], &said[1]["deliveries"]), (&json!(3), &json!(3)));
    assert!(said[1].get("openings").is_none() && said[2]["openings"].as_i64().unwrap() > 0);
    assert!(said[2]["openings_before"].is_string());
    assert_eq!(applied[0]["data"]["actor"]["id"], "system");
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_node_applies_its_policy_and_a_wrong_one_is_refused() {
    let mut world = World::new().await;
    let workspace = world.workspace("kept").await;
    let receiver = Receiver::of(&world).await;
    let source = workspace.inbound("events").await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    source.event("an event").await;
    receiver.taken("hook", 1).await;
    destination.settled(1, "delivered").await;
    world.stop().await;
    sqlx::query("UPDATE deliveries SET settled_at = now() - interval '31 days'")
        .execute(&mut world.database.superuser().await)
        .await
        .unwrap();
    world.settings.retention.deliveries_days = Some(30);
    world.start().await.unwrap();
    eventually("the policy is applied", || async {
        (workspace.entries_of("audit.retention.applied").await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(destination.deliveries().await.len(), 0);
    let own = format!("/v1/workspaces/{}/audit?action=settings.changed", world.node().instance.workspace);
    let changed = world.api.get(&own).await.expect(200).json();
    let change = &changed["items"][0]["data"]["changes"]["retention.deliveries_days"];
    assert_eq!(change, &json!({ "after": 30 }), "the policy itself is on the record: {changed}");
    world.settings.retention.openings_days = Some(29);
    assert!(world.settings.check().is_err());
}

#[tokio::test]
async fn what_ended_long_ago_is_removed_and_what_has_not_stays() {
    let world = World::new().await;
    let workspace = world.workspace("ended").await;
    let people = [
        world.person("a@example.com", &[(workspace.id, Role::Owner)]).await,
        world.person("b@example.com", &[(workspace.id, Role::Viewer)]).await,
        world.person("c@example.com", &[(workspace.id, Role::Viewer)]).await,
    ];
    for email in ["d@example.com", "e@example.com", "f@example.com"] {
        let invited = json!({ "email": email, "role": "viewer" });
        world.api.post(&workspace.at("/invitations"), invited).await.expect(201);
    }
    let mut superuser = world.database.superuser().await;
    for statement in [
        "INSERT INTO sign_in_links (link_id, hash, first, expires_at, used_at) VALUES
             (gen_random_uuid(), sha256('1'), false, now() - interval '31 days', NULL),
             (gen_random_uuid(), sha256('2'), false, now() + interval '1 hour', now() - interval '31 days'),
             (gen_random_uuid(), sha256('3'), false, now() + interval '1 hour', now() - interval '29 days')",
        "UPDATE invitations SET revoked_at = now() - interval '31 days' WHERE invitation_id =
             (SELECT min(invitation_id::text)::uuid FROM invitations)",
        "UPDATE invitations SET accepted_at = now() - interval '29 days' WHERE invitation_id =
             (SELECT max(invitation_id::text)::uuid FROM invitations)",
    ] {
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }
    for (person, column, days) in
        [(&people[0], "ended_at", 31), (&people[1], "expires_at", 31), (&people[2], "ended_at", 29)]
    {
        let statement =
            format!("UPDATE sessions SET {column} = now() - interval '{days} days' WHERE session_id = $1");
        sqlx::query(AssertSqlSafe(statement))
            .bind(person.session.uuid())
            .execute(&mut superuser)
            .await
            .unwrap();
    }
    let of = async |table| count(&world, table).await;
    assert_eq!((of("sessions").await, of("sign_in_links").await, of("invitations").await), (3, 3, 3));
    assert_eq!(ended::remove(&world.node().database).await.unwrap(), 5);
    assert_eq!((of("sessions").await, of("sign_in_links").await, of("invitations").await), (1, 1, 2));
    assert_eq!(ended::remove(&world.node().database).await.unwrap(), 0);
}
