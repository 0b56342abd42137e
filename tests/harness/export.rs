//! Exports, verified by the verifier's library and by the independent implementation.

use statusledger_verify::export::{self, Error, Options};
use statusledger_verify::manifest::Pin;
use std::path::Path;
use std::process::Command;

/// What the verifier says of an export.
pub type Verified = Result<statusledger_verify::Report, Error>;

/// Verifies with the library.
pub fn verify_export(file: &Path, pin: &Pin) -> Verified {
    export::verify(file, pin, None, &Options::default(), &|_, _| {})
}

/// Verifies with the Python implementation: its exit code. None: this machine has no Python 3.
pub fn verify_export_with_python(file: &Path, pin: &Pin) -> Option<i32> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/statusledger_verify.py");
    let mut command = Command::new("python3");
    command.arg(script).arg("export").arg(file).args(["--pin", &pin.to_string()]);
    match command.output() {
        Ok(output) => {
            if !output.status.success() {
                eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            }
            output.status.code()
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no python3 to verify with");
            None
        }
        Err(e) => panic!("{e}"),
    }
}
