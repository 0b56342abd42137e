"""Store clients that are not ours against the simulator: what they read has to be what the scenario says.

clients.py SIMULATOR SPECS DIRECTORY: the simulator's program, the directory of the stores' descriptions, and an empty
directory for the scenario and the keys. Exits with 1 where anything differs.
"""

import json
import pathlib
import re
import signal
import subprocess
import sys

from codemagic.apple import AppStoreConnectApiError
from codemagic.apple.app_store_connect import AppStoreConnectApiClient, IssuerId, KeyIdentifier
from codemagic.apple.resources import BuildProcessingState, ReviewSubmissionState
from google.auth.exceptions import RefreshError
from google.oauth2 import service_account
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError

PUBLISHER = "https://www.googleapis.com/auth/androidpublisher"
REPORTING = "https://www.googleapis.com/auth/playdeveloperreporting"

# More apps than a page of either client has.
MANY = 130
PACKAGE = "com.acme.weather"
APP = "1001"

SCENARIO = {
    "app_store": [{
        "name": "Acme",
        "apps": [{"id": APP, "name": "Acme Weather", "bundle_id": PACKAGE}] + [
            {"id": str(2000 + n), "name": f"Other {n:03}", "bundle_id": f"com.acme.other{n}"} for n in range(MANY)
        ],
        "builds": [
            {"id": "b-41", "app": APP, "platform": "IOS", "version": "41", "pre_release_version": "2.0.0",
             "uploaded": "2026-01-05T10:20:30Z"},
            {"id": "b-42", "app": APP, "platform": "IOS", "version": "42", "pre_release_version": "2.1.0",
             "processing_state": "PROCESSING", "uploaded": "2026-02-05T10:20:30Z"},
            {"id": "b-other", "app": "2000", "platform": "IOS", "version": "7", "pre_release_version": "1.0.0"},
        ],
        "versions": [
            {"id": "v-200", "app": APP, "platform": "IOS", "version_string": "2.0.0",
             "state": "READY_FOR_DISTRIBUTION", "build": "b-41", "created": "2026-01-04T00:00:00Z",
             "phased_release": {"state": "ACTIVE", "day": 3}},
            {"id": "v-210", "app": APP, "platform": "IOS", "version_string": "2.1.0", "state": "WAITING_FOR_REVIEW"},
            {"id": "v-mac", "app": APP, "platform": "MAC_OS", "version_string": "1.0.0", "state": "REJECTED"},
        ],
        "beta_reviews": [{"build": "b-41", "state": "APPROVED", "submitted": "2026-01-06T08:00:00Z"}],
        "review_submissions": [
            {"id": "s-1", "app": APP, "platform": "IOS", "state": "WAITING_FOR_REVIEW", "version": "v-210",
             "submitted": "2026-02-07T08:00:00Z"},
            {"id": "s-2", "app": APP, "platform": "MAC_OS", "state": "UNRESOLVED_ISSUES", "version": "v-mac",
             "submitted": "2026-02-06T08:00:00Z"},
        ],
        "review_items": [
            {"id": "i-1", "submission": "s-1", "state": "READY_FOR_REVIEW", "version": "v-210"},
            {"id": "i-2", "submission": "s-2", "state": "REJECTED", "version": "v-mac"},
        ],
    }],
    "google_play": [{
        "name": "acme",
        "apps": [{"package": PACKAGE, "display_name": "Acme Weather", "tracks": ["qa", "wear:production"]}] + [
            {"package": f"com.acme.other{n}", "display_name": f"Other {n}"} for n in range(MANY)
        ],
        "releases": [
            {"package": PACKAGE, "track": "production", "name": "2.0.0", "version_codes": [200, 201],
             "state": "PUBLISHED", "status": "completed"},
            {"package": PACKAGE, "track": "production", "name": "2.1.0", "version_codes": [210],
             "state": "PUBLISHED", "status": "inProgress", "user_fraction": 0.05, "in_app_update_priority": 3},
            {"package": PACKAGE, "track": "production", "name": "2.2.0", "version_codes": [220],
             "state": "IN_REVIEW"},
            {"package": PACKAGE, "track": "qa", "name": "2.1.0", "version_codes": [210], "state": "PUBLISHED"},
        ],
    }],
}

differences = 0


def check(what, found, expected):
    """Compares what a call brought, or what is found, and says what came of it."""
    global differences
    if callable(found):
        try:
            found = found()
        except Exception as error:  # A client that cannot read an answer is a difference like any other.
            found = error
    if found == expected:
        print(f"ok        {what}")
        return
    differences += 1
    print(f"DIFFERENT {what}\n  expected {expected!r}\n  found    {found!r}")


def refused(what, call, error, expected, told):
    """A call that has to be refused, and how."""
    try:
        check(what, call(), f"refused: {expected}")
    except error as refusal:
        check(what, told(refusal), expected)


class Simulator:
    """The simulator, for as long as it is needed; it says where it is and where it put the keys."""

    def __init__(self, program, directory):
        scenario = directory / "scenario.json"
        scenario.write_text(json.dumps(SCENARIO))
        arguments = [program, "--scenario", scenario, "--port", "0", "--speed", "0", "--keys", directory / "keys"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.base, self.app_store, self.google_play = None, None, None
        while not (self.base and self.app_store and self.google_play):
            line = self.process.stdout.readline()
            if not line:
                sys.exit(f"the simulator ended with {self.process.wait()} before it said where it is")
            if match := re.fullmatch(r"listening on (\S+)\n", line):
                self.base = match[1]
            elif match := re.fullmatch(r"App Store Connect, Acme: key (\S+) issuer (\S+) in (.+)\n", line):
                self.app_store = match.groups()
            elif match := re.fullmatch(r"Google Play, acme: (.+)\n", line):
                self.google_play = match[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


def google(simulator, specs):
    """google-api-python-client, its services made of Google's descriptions as they are."""
    def service(name, *scopes, **changes):
        document = json.loads((specs / f"google-{name}.json").read_text())
        account = {**json.loads(pathlib.Path(simulator.google_play).read_text()), **changes}
        credentials = service_account.Credentials.from_service_account_info(account, scopes=scopes)
        return build_from_document(
            document, credentials=credentials, client_options={"api_endpoint": simulator.base + "/"})

    def reason(error):
        return error.status_code, error.error_details[0]["reason"]

    account = SCENARIO["google_play"][0]
    reporting = service("playdeveloperreporting-v1beta1", REPORTING)
    publisher = service("androidpublisher-v3", PUBLISHER)

    pages, apps = 0, []
    request = reporting.apps().search(pageSize=100)
    while request is not None:
        answer = request.execute()
        pages += 1
        apps += [(app["name"], app["packageName"], app["displayName"]) for app in answer["apps"]]
        request = reporting.apps().search_next(request, answer)
    expected = [(f"apps/{app['package']}", app["package"], app["display_name"]) for app in account["apps"]]
    check("apps.search, over two pages", (pages, apps), (2, expected))

    options = reporting.apps().fetchReleaseFilterOptions(name=f"apps/{PACKAGE}").execute()
    tracks = {track["displayName"]: sorted(sum((release["versionCodes"] for release in track["servingReleases"]), []))
              for track in options["tracks"]}
    check("apps.fetchReleaseFilterOptions", tracks, {"Production": ["200", "201", "210"], "qa": ["210"]})

    releases = publisher.applications().tracks().releases()

    def listed(package, track):
        answer = releases.list(parent=f"applications/{package}/tracks/{track}").execute()
        return sorted(
            (release["track"], release["releaseName"], release["releaseLifecycleState"],
             sorted(artifact["versionCode"] for artifact in release["activeArtifacts"]))
            for release in answer["releases"])

    def stated(track):
        return sorted(
            (track, release["name"], f"RELEASE_LIFECYCLE_STATE_{release['state']}", release["version_codes"])
            for release in account["releases"] if release["track"] == track)

    for track in ["production", "qa"]:
        check(f"releases.list, {track}", listed(PACKAGE, track), stated(track))
    for track in ["alpha", "wear:production"]:
        refused(f"releases.list, {track}, which is empty", lambda: listed(PACKAGE, track), HttpError,
                (404, "trackEmpty"), reason)
    refused("releases.list of an app that is not there", lambda: listed("com.acme.nowhere", "production"), HttpError,
            (404, "applicationNotFound"), reason)

    edits = publisher.edits()
    first = edits.insert(packageName=PACKAGE, body={}).execute()
    check("edits.insert", sorted(first), ["expiryTimeSeconds", "id"])
    answer = edits.tracks().list(packageName=PACKAGE, editId=first["id"]).execute()
    shown = {track["track"]: [
        (release["name"], sorted(release["versionCodes"]), release["status"], release.get("userFraction"),
         release.get("inAppUpdatePriority")) for release in track.get("releases", [])] for track in answer["tracks"]}
    check("edits.tracks.list, its tracks", sorted(shown),
          ["alpha", "beta", "internal", "production", "qa", "wear:production"])
    check("edits.tracks.list, what is rolled out",
          sorted(release for release in shown["production"] if release[0] != "2.2.0"),
          [("2.0.0", ["200", "201"], "completed", None, None), ("2.1.0", ["210"], "inProgress", 0.05, 3)])
    second = edits.insert(packageName=PACKAGE, body={}).execute()
    check("a second edit is another", first["id"] != second["id"], True)
    for what, call in [
        ("tracks.list", lambda: edits.tracks().list(packageName=PACKAGE, editId=first["id"]).execute()),
        ("delete", lambda: edits.delete(packageName=PACKAGE, editId=first["id"]).execute()),
    ]:
        refused(f"edits.{what} of an edit that another one ended", call, HttpError, True,
                lambda error: error.status_code in (400, 404, 410))
    check("edits.delete", edits.delete(packageName=PACKAGE, editId=second["id"]).execute(), "")
    refused("edits.get of an edit that is discarded",
            lambda: edits.get(packageName=PACKAGE, editId=second["id"]).execute(), HttpError, True,
            lambda error: error.status_code in (400, 404, 410))

    narrow = service("playdeveloperreporting-v1beta1", PUBLISHER)
    refused("apps.search without its scope", lambda: narrow.apps().search().execute(), HttpError,
            (403, "insufficientPermissions"), reason)
    nobody = service("androidpublisher-v3", PUBLISHER, client_email="nobody@nowhere.iam.gserviceaccount.com")
    refused("a token for an account that there is not",
            lambda: nobody.edits().insert(packageName=PACKAGE, body={}).execute(), RefreshError, True,
            lambda error: "invalid_grant" in str(error))


def apple(simulator):
    """codemagic-cli-tools, its address overridden."""
    key, issuer, path = simulator.app_store
    AppStoreConnectApiClient.API_URL = simulator.base + "/v1"
    secret = pathlib.Path(path).read_text()
    client = AppStoreConnectApiClient(KeyIdentifier(key), IssuerId(issuer), secret)
    team = SCENARIO["app_store"][0]

    check("apps, over two pages and by name",
          lambda: [(app.id, app.attributes.name, app.attributes.bundleId) for app in client.apps.list()],
          sorted(((app["id"], app["name"], app["bundle_id"]) for app in team["apps"]), key=lambda app: app[1]))
    check("apps, by bundle id",
          lambda: [app.id for app in client.apps.list(client.apps.Filter(bundle_id=PACKAGE))], [APP])
    check("an app", lambda: client.apps.read(APP).attributes.bundleId, PACKAGE)

    check("app store versions",
          lambda: sorted((version.id, version.attributes.platform.value, version.attributes.versionString)
                         for version in client.apps.list_app_store_versions(APP)),
          sorted((version["id"], version["platform"], version["version_string"]) for version in team["versions"]))
    answer = client.session.get(f"{client.API_URL}/apps/{APP}/appStoreVersions").json()
    check("app store versions, their states",
          {version["id"]: version["attributes"]["appVersionState"] for version in answer["data"]},
          {version["id"]: version["state"] for version in team["versions"]})
    check("an app store version", lambda: client.app_store_versions.read("v-210").attributes.versionString, "2.1.0")

    def phased():
        read = client.app_store_versions.read_app_store_version_phased_release("v-200").attributes
        return read.phasedReleaseState.value, read.currentDayNumber

    check("a phased release", phased, ("ACTIVE", 3))

    check("builds, the oldest first",
          lambda: [(build.id, build.attributes.version, build.attributes.processingState.value, build.attributes.expired)
                   for build in client.builds.list(client.builds.Filter(app=APP))],
          [("b-41", "41", "VALID", False), ("b-42", "42", "PROCESSING", False)])
    processing = client.builds.Filter(app=APP, processing_state=BuildProcessingState.PROCESSING)
    check("builds, by state", lambda: [build.id for build in client.builds.list(processing)], ["b-42"])
    check("a build", lambda: client.builds.read("b-41").attributes.version, "41")

    def pre_release_versions():
        answer = client.builds.list_data_with_include("preReleaseVersion", client.builds.Filter(app=APP))
        return sorted(version["attributes"]["version"] for version in answer.included)

    check("builds with their pre-release versions", pre_release_versions, ["2.0.0", "2.1.0"])

    reviews = client.beta_app_review_submissions
    check("beta app review submissions",
          lambda: [review.attributes.betaReviewState.value for review in reviews.list(reviews.Filter(build="b-41"))],
          ["APPROVED"])
    submissions = client.review_submissions
    check("review submissions",
          lambda: sorted((submission.id, ReviewSubmissionState(submission.attributes.state).value)
                 for submission in submissions.list(submissions.Filter(app=APP))),
          [("s-1", "WAITING_FOR_REVIEW"), ("s-2", "UNRESOLVED_ISSUES")])
    check("a review submission", lambda: submissions.read("s-2").id, "s-2")
    check("the items of a review submission",
          lambda: [item.id for item in submissions.list_items("s-2")], ["i-2"])

    def status(error):
        return error.status_code

    refused("an app that is not there", lambda: client.apps.read("404404"), AppStoreConnectApiError, 404, status)
    foreign = AppStoreConnectApiClient(KeyIdentifier("ABCDEFGHIJ"), IssuerId(issuer), secret)
    refused("a key that is not there", lambda: foreign.apps.list(), AppStoreConnectApiError, 401, status)


def main():
    program, specs, directory = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    with Simulator(program, directory) as simulator:
        google(simulator, specs)
        apple(simulator)
    if differences:
        sys.exit(f"{differences} differences")


main()
