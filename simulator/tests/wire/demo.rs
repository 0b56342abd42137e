//! The demo's scenario.

use statusledger_simulator::{Options, Scenario, Simulator};

/// The speed that the demo's scenario brings with it.
fn demo_speed() -> f64 {
    Scenario::demo().speed.unwrap()
}

async fn still(scenario: Scenario) -> Simulator {
    Simulator::start(scenario, Options { speed: Some(0.0), ..Options::default() }).await.unwrap()
}

#[tokio::test]
async fn the_demo_makes_its_first_transition_within_half_a_second_and_sixty_within_fifteen() {
    let simulator = still(Scenario::demo()).await;
    assert_eq!(simulator.transitions(), 0);
    simulator.advance(0.5 * demo_speed());
    assert!(simulator.transitions() >= 1);
    simulator.advance(14.5 * demo_speed());
    assert!(simulator.transitions() >= 60, "only {} transitions", simulator.transitions());
}

#[tokio::test]
async fn the_demo_runs_for_a_day_without_running_dry_or_growing() {
    let simulator = still(Scenario::demo()).await;
    let mut before = 0;
    for _ in 0..24 {
        simulator.advance(3600.0 * demo_speed());
        let now = simulator.transitions();
        assert!(now - before > 10_000, "{} transitions in an hour", now - before);
        before = now;
    }
    let snapshot = crate::support::snapshot(&simulator).await;
    assert!(snapshot.len() < 400, "{} resources", snapshot.len());
}

#[tokio::test]
async fn a_seed_gives_the_same_course_and_another_seed_another() {
    let mut seen = Vec::new();
    for seed in [7, 7, 8] {
        let simulator = still(Scenario::demo_with(seed)).await;
        simulator.advance(60.0 * demo_speed());
        seen.push((simulator.transitions(), crate::support::snapshot(&simulator).await));
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}

#[tokio::test]
async fn the_demo_takes_its_steps_by_itself() {
    let scenario = Scenario { speed: Some(1e9), ..Scenario::demo() };
    let simulator = Simulator::start(scenario, Options::default()).await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while simulator.transitions() < 60 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    simulator.shutdown().await;
}

#[tokio::test]
async fn reviews_rollouts_purchases_and_subscriptions_move_in_the_demo() {
    let simulator = still(Scenario::demo()).await;
    simulator.advance(60.0 * demo_speed());
    let moved = |resource: &str| {
        simulator.history().iter().any(|change| change.resource == resource && change.from.is_some())
    };
    for resource in [
        "appStoreVersions",
        "reviewSubmissions",
        "reviewSubmissionItems",
        "appStoreVersionPhasedReleases",
        "inAppPurchases",
        "subscriptions",
        "releases",
    ] {
        assert!(moved(resource), "no {resource}");
    }
}
