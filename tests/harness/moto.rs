//! AWS KMS that is not ours: moto's server, of the versions in tests/kms/requirements.txt. It is installed into a
//! virtual environment under the target directory once; where that cannot be done, the test fails.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kms/requirements.txt");
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kms/server.py");

/// The Python that has moto.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = std::fs::File::create(place.join("moto-lock")).unwrap();
    // Another run of the tests may be installing it.
    let _lock =
        nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    let venv = place.join("moto");
    let python = venv.join("bin/python");
    let wanted = std::fs::read_to_string(REQUIREMENTS).unwrap();
    // Written last: what a killed run left is made again.
    let installed = venv.join("installed");
    if std::fs::read_to_string(&installed).is_ok_and(|has| has == wanted) {
        return python;
    }
    let done = |what: &str, command: &mut std::process::Command| {
        let output = command.output().unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    };
    done(
        "no virtual environment can be made (Debian: apt-get install python3-venv)",
        std::process::Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv),
    );
    done(
        "moto cannot be installed",
        std::process::Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            REQUIREMENTS,
        ]),
    );
    std::fs::write(installed, wanted).unwrap();
    python
});

/// A moto server; it ends with this.
pub struct Moto {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    client: reqwest::Client,
    /// It reads its standard input to the end, which comes with this process's.
    _child: Child,
}

impl Moto {
    pub async fn start() -> Self {
        let python = tokio::task::spawn_blocking(|| PYTHON.clone()).await.unwrap();
        let mut child = Command::new(python)
            .arg(SERVER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(super::DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
        let (host, port) = line.split_once(' ').unwrap();
        Self { endpoint: format!("http://{host}:{port}"), client: reqwest::Client::new(), _child: child }
    }

    /// What moto routes by: it does not look at the signature.
    fn authorization(service: &str, region: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        )
    }

    /// Calls an operation of KMS; the answer's status and body.
    pub async fn kms(&self, region: &str, operation: &str, body: Value) -> (u16, Value) {
        let answer = self
            .client
            .post(&self.endpoint)
            .header("authorization", Self::authorization("kms", region))
            .header("x-amz-target", format!("TrentService.{operation}"))
            .header("content-type", "application/x-amz-json-1.1")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Makes a KMS key; its ARN.
    pub async fn key(&self, region: &str) -> String {
        let (status, answer) = self.kms(region, "CreateKey", json!({})).await;
        assert_eq!(status, 200, "{answer}");
        answer["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
    }

    async fn iam(&self, form: &[(&str, &str)]) -> String {
        let answer = self
            .client
            .post(&self.endpoint)
            .header("authorization", Self::authorization("iam", "us-east-1"))
            .form(&[form, &[("Version", "2010-05-08")]].concat())
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 200, "{text}");
        text
    }

    /// Makes a user who may call `actions` on anything; the access key's id and secret.
    pub async fn user(&self, name: &str, actions: &[&str]) -> (String, String) {
        self.iam(&[("Action", "CreateUser"), ("UserName", name)]).await;
        if !actions.is_empty() {
            let policy = json!({
                "Version": "2012-10-17",
                "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": "*" }],
            });
            self.iam(&[
                ("Action", "PutUserPolicy"),
                ("UserName", name),
                ("PolicyName", "kms"),
                ("PolicyDocument", &policy.to_string()),
            ])
            .await;
        }
        let made = self.iam(&[("Action", "CreateAccessKey"), ("UserName", name)]).await;
        let member = |tag: &str| {
            let (_, rest) = made.split_once(&format!("<{tag}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        (member("AccessKeyId"), member("SecretAccessKey"))
    }

    /// From here on signatures and policies are looked at.
    pub async fn enforce_policies(&self) {
        let path = format!("{}/moto-api/reset-auth", self.endpoint);
        let answer = self.client.post(path).body("0").send().await.unwrap();
        assert!(answer.status().is_success());
    }
}
