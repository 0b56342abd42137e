//! An invitation whose first transaction was committed and whose second was not: the person is made and the invitation
//! claimed, but they are no member yet. The database cuts the second off, as a crash between the two would.

use super::authenticator::Authenticator;
use super::browser::{Browser, location};
use super::issuer::Signed;
use super::{by_issuer, owner, with_issuer};
use crate::harness::{Answer, World};
use serde_json::{Value, json};

/// Has the database refuse every new member, or take them again.
async fn members_are_refused(world: &World, refused: bool) {
    let statement = if refused {
        "CREATE FUNCTION cut_off() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'cut off'; END $$;
         CREATE TRIGGER cut_off BEFORE INSERT ON members FOR EACH ROW EXECUTE FUNCTION cut_off()"
    } else {
        "DROP TRIGGER cut_off ON members; DROP FUNCTION cut_off()"
    };
    sqlx::raw_sql(statement).execute(&mut world.database.superuser().await).await.unwrap();
}

async fn people(world: &World) -> usize {
    world.api.get("/v1/people").await.expect(200).json()["items"].as_array().unwrap().len()
}

/// The names of the workspaces that somebody has a part in.
async fn workspaces(browser: &mut Browser) -> Vec<String> {
    let list = browser.get("/v1/workspaces").await.expect(200).json();
    list["items"].as_array().unwrap().iter().map(|w| w["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_invitation_that_was_claimed_and_cut_off_is_still_its_persons_and_nobody_elses() {
    let (world, issuer) = with_issuer().await;
    let mut known = owner(&world).await;
    let token = world.invitation("team").await;
    let start = format!("/sign-in/with/issuer?invitation={token}");
    let arrives = async |name: &str| -> (Browser, Answer) {
        let mut browser = Browser::of(&world);
        let named = |c: &mut Value| {
            c["sub"] = name.into();
            c["email"] = format!("{name}@example.com").into();
        };
        let answer = by_issuer(&mut browser, &issuer, &start, named, Signed::Rightly).await;
        (browser, answer)
    };
    members_are_refused(&world, true).await;
    let (browser, answer) = arrives("ana").await;
    assert_eq!(answer.status, 500);
    assert!(browser.cookie("sl_session").is_none());
    // Cut off again and again, it makes nobody twice.
    assert_eq!(arrives("ana").await.1.status, 500);
    assert_eq!(people(&world).await, 2, "the owner, and Ana");
    members_are_refused(&world, false).await;

    // Nobody else can have it: neither somebody new, nor somebody who is known.
    assert_eq!(arrives("mallory").await.1.status, 403);
    world.failed("invitation").await;
    let accepted = known.json("POST", "/v1/invitations/accept", &json!({ "token": token })).await;
    assert_eq!(accepted.problem(404), "not-found");
    assert_eq!(people(&world).await, 2);

    // Ana comes again, in another browser, and all is as if nothing had been.
    let (mut browser, answer) = arrives("ana").await;
    assert_eq!(location(&answer), "/account");
    assert_eq!(workspaces(&mut browser).await, ["team"]);
    assert_eq!(people(&world).await, 2);
    assert_eq!(Browser::of(&world).get(&start).await.status, 403, "it is used up");
    assert!(world.doctor().await.is_empty());
}

#[tokio::test]
async fn a_first_passkey_whose_invitation_was_cut_off_accepts_it_later() {
    let (world, _issuer) = with_issuer().await;
    let token = world.invitation("team").await;
    let mut authenticator = Authenticator::new();
    let mut browser = Browser::of(&world);
    members_are_refused(&world, true).await;
    let newcomer = json!({ "invitation": token, "name": "Ana" });
    let begun = browser.json("POST", "/sign-in/invited/challenge", &newcomer).await.expect(200).json();
    let credential = authenticator.create(&begun["options"], &browser);
    let made = json!({ "state": begun["state"], "credential": credential });
    assert_eq!(browser.json("POST", "/sign-in/invited", &made).await.problem(500), "internal");
    members_are_refused(&world, false).await;
    // A second passkey for the same invitation would be somebody else.
    let mut other = Browser::of(&world);
    let begun = other.json("POST", "/sign-in/invited/challenge", &newcomer).await.expect(200).json();
    let credential = Authenticator::new().create(&begun["options"], &other);
    let made = json!({ "state": begun["state"], "credential": credential });
    assert_eq!(other.json("POST", "/sign-in/invited", &made).await.problem(403), "invitation");

    authenticator.sign_in(&mut browser, Some(&token)).await.expect(200);
    assert_eq!(workspaces(&mut browser).await, ["team"]);
    assert_eq!(people(&world).await, 1);
}
