//! The shape of the zip, E1: what ordinary writers make, and every way to hide something in one.
#![allow(clippy::unwrap_used)]

mod export_support;

use std::io::Write;
use std::process::{Command, Stdio};

use export_support::zip::{self, Descriptor, Member, extra};
use export_support::*;
use statusledger_verify::export::{self, Error, Options};
use statusledger_verify::{Check, Failure};

fn signer() -> Signer {
    Signer::new(b"zip tests")
}

fn verify(bytes: &[u8]) -> Result<(), Failure> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    match export::verify(file.path(), &signer().pin(), None, &Options::default(), &|_, _| ()) {
        Ok(_) => Ok(()),
        Err(Error::Failed(failure)) => Err(failure),
        Err(Error::Io(error)) => panic!("{error}"),
    }
}

#[track_caller]
fn refused(bytes: &[u8]) {
    let failure = verify(bytes).unwrap_err();
    assert_eq!(failure.check, Check::Zip, "{failure}");
}

fn data() -> Vec<(String, Vec<u8>)> {
    Export::of(&signer(), &Ledger::of(7), (0, 7), None, true).members(&signer())
}

fn stored() -> Vec<Member> {
    data().into_iter().map(|(name, data)| Member::stored(&name, data)).collect()
}

fn deflated() -> Vec<Member> {
    data().iter().map(|(name, data)| Member::deflated(name, data)).collect()
}

/// One member of five changed, in each place.
#[track_caller]
fn each_refused(change: impl Fn(Member) -> Member) {
    for members in [stored(), deflated()] {
        for i in 0..members.len() {
            let mut members = members.clone();
            members[i] = change(members[i].clone());
            refused(&zip::write(&members));
        }
    }
}

#[track_caller]
fn each_accepted(change: impl Fn(Member) -> Member) {
    for members in [stored(), deflated()] {
        for i in 0..members.len() {
            let mut some = members.clone();
            some[i] = change(some[i].clone());
            verify(&zip::write(&some)).unwrap();
        }
        verify(&zip::write(&members.into_iter().map(&change).collect::<Vec<_>>())).unwrap();
    }
}

#[test]
fn both_methods_every_descriptor_and_zip64_are_accepted() {
    each_accepted(|member| member);
    for signed in [false, true] {
        for wide in [false, true] {
            each_accepted(|member| member.streamed(signed, wide));
            each_accepted(|member| member.streamed(signed, wide).wide(false));
            each_accepted(|member| {
                // A writer that knows the sizes beforehand and gives a descriptor all the same.
                let (crc, compressed, size) = (member.local.crc, member.local.compressed, member.local.size);
                let mut member = member.streamed(signed, wide);
                (member.local.crc, member.local.compressed, member.local.size) = (crc, compressed, size);
                member
            });
        }
    }
    each_accepted(|member| member.wide(false));
    each_accepted(|member| member.wide(true));
    each_accepted(|mut member| {
        member.wide_offset = true;
        member
    });
    each_accepted(|member| member.both(|header| header.version = 45));
    each_accepted(|member| member.both(|header| header.flags |= 1 << 11));
    each_accepted(|mut member| {
        (member.made_by, member.attributes) = (20, 0x20);
        member
    });
    for id in [0x000a, 0x5455, 0x5855, 0x7855, 0x7875] {
        each_accepted(|member| member.both(|header| header.extra.extend(extra(id, b"\x03\0\0\0\0"))));
        each_accepted(|mut member| {
            member.local.extra.extend(extra(id, b"\x03\0\0\0\0\0\0\0\0"));
            member
        });
    }
    for bits in [0b010, 0b100, 0b110] {
        let members = deflated().into_iter().map(|member| member.both(|header| header.flags |= bits));
        verify(&zip::write(&members.collect::<Vec<_>>())).unwrap();
        let members = stored().into_iter().map(|member| member.both(|header| header.flags |= bits));
        refused(&zip::write(&members.collect::<Vec<_>>()));
    }
}

#[test]
fn zip64_end_records_are_accepted_where_they_agree() {
    let (members, directory) = zip::parts(&stored());
    let (count, size, offset) = (stored().len() as u16, directory.len() as u32, members.len() as u32);
    let end64 = zip::end64(count.into(), size.into(), offset.into());
    let whole = |end64: &[u8], end: &[u8]| [&members, &directory, end64, end].concat();
    let max = (u16::MAX, u32::MAX, u32::MAX);
    for (count, size, offset) in [
        max,
        (count, size, u32::MAX),
        (count, u32::MAX, offset),
        (u16::MAX, size, offset),
        (count, size, offset),
    ] {
        verify(&whole(&end64, &zip::end(count, size, offset, b""))).unwrap();
    }
    let end = zip::end(u16::MAX, u32::MAX, u32::MAX, b"");
    for place in 0..end64.len() {
        // Made by, version (rising beyond what is known) and nothing else may be another.
        for flip in [1, 0x80] {
            let mut wrong = end64.clone();
            wrong[place] ^= flip;
            if (12..14).contains(&place) || (place == 14 && flip == 1) {
                verify(&whole(&wrong, &end)).unwrap();
            } else {
                refused(&whole(&wrong, &end));
            }
        }
    }
    refused(&whole(&[], &end));
    refused(&whole(&end64[56..], &end));
    refused(&whole(&end64[..56], &end));
    refused(&whole(&[&end64[..], b"x"].concat(), &end));
    refused(&whole(&[b"x", &end64[..]].concat(), &end));
    for (count, size, offset) in
        [(4, u32::MAX, u32::MAX), (u16::MAX, size + 1, u32::MAX), (u16::MAX, u32::MAX, offset - 1)]
    {
        refused(&whole(&end64, &zip::end(count, size, offset, b"")));
    }
}

#[test]
fn members_of_other_names_or_in_another_order_are_refused() {
    for i in 0..5 {
        let mut members = stored();
        members.remove(i);
        if i == 1 {
            verify(&zip::write(&members)).unwrap();
        } else {
            refused(&zip::write(&members));
        }
        for j in 0..=5 {
            let mut members = stored();
            members.insert(j, members[i].clone());
            refused(&zip::write(&members));
        }
        for j in 0..i {
            let mut members = stored();
            members.swap(i, j);
            refused(&zip::write(&members));
        }
        for j in 0..5 {
            if i != j {
                let mut members = stored();
                members[j] = members[i].clone();
                refused(&zip::write(&members));
            }
        }
        for name in [
            "",
            "/",
            "x/",
            "readme",
            "./checkpoint",
            "/checkpoint",
            "../checkpoint",
            "..\\checkpoint",
            "C:checkpoint",
            "checkpoint\0",
            "checkpoint/",
            "CHECKPOINT",
            "checkpoint ",
            "sub/manifest.json",
            "entries.jsonl\u{0}.txt",
        ] {
            let mut members = stored();
            members[i] = members[i].clone().both(|header| header.name = name.into());
            refused(&zip::write(&members));
            let mut members = stored();
            members.insert(i, Member::stored(name, Vec::new()));
            refused(&zip::write(&members));
        }
    }
    refused(&zip::write(&[]));
    refused(b"");
    refused(&[b'x'; 1000]);
}

#[test]
fn headers_that_disagree_are_refused() {
    each_refused(|mut member| {
        member.local.name[0] ^= 1;
        member
    });
    each_refused(|mut member| {
        member.local.name.push(b'x');
        member
    });
    each_refused(|mut member| {
        member.local.method ^= 8;
        member
    });
    each_refused(|mut member| {
        member.local.flags ^= 1 << 11;
        member
    });
    each_refused(|mut member| {
        member.central.flags ^= 8;
        member
    });
    each_refused(|mut member| {
        member.local.modified ^= 1;
        member
    });
    each_refused(|mut member| {
        member.local.crc ^= 1;
        member
    });
    each_refused(|mut member| {
        member.local.size ^= 1;
        member
    });
    each_refused(|mut member| {
        member.local.compressed ^= 1;
        member
    });
    // Zero stands for "see the descriptor" only where there is one.
    each_refused(|mut member| {
        (member.local.crc, member.local.size, member.local.compressed) = (0, 0, 0);
        member
    });
    each_refused(|mut member| {
        member.descriptor = Descriptor::Present { signed: true, wide: false };
        member
    });
    each_refused(|member| {
        let mut member = member.streamed(true, false);
        member.descriptor = Descriptor::None;
        member
    });
    each_refused(|member| {
        let mut member = member.streamed(true, false);
        member.local.size = member.central.size + 1;
        member
    });
    each_refused(|mut member| {
        member = member.wide(false);
        member.local.extra[4] ^= 1;
        member
    });
    each_refused(|member| {
        let size = member.local.size;
        let mut member = member.wide(false);
        member.local.size = size + 1;
        member
    });
}

#[test]
fn descriptors_that_disagree_are_refused() {
    for signed in [false, true] {
        for wide in [false, true] {
            let length = 12 + 4 * usize::from(signed) + 8 * usize::from(wide);
            for i in 0..5 {
                let mut members = stored();
                members[i] = members[i].clone().streamed(signed, wide);
                let end = zip::parts(&members[..=i]).0.len();
                let whole = zip::write(&members);
                verify(&whole).unwrap();
                for place in end - length..end {
                    let mut wrong = whole.clone();
                    wrong[place] ^= 1;
                    refused(&wrong);
                }
            }
        }
    }
}

#[test]
fn sizes_sums_and_data_that_are_not_so_are_refused() {
    each_refused(|member| member.both(|header| header.crc ^= 1));
    each_refused(|member| member.both(|header| header.size += 1));
    each_refused(|member| member.both(|header| header.size -= 1));
    each_refused(|member| member.both(|header| header.size = 0));
    each_refused(|member| member.both(|header| header.compressed += 1));
    each_refused(|member| member.both(|header| header.compressed -= 1));
    each_refused(|member| member.both(|header| header.method ^= 8));
    each_refused(|mut member| {
        member.data[0] ^= 1;
        member
    });
    // Each byte of a compressed member in turn, and a stream that ends early or goes on.
    let right = deflated();
    // (The bits after the end of a stream, in its last byte, mean nothing.)
    for place in 0..right[2].data.len() - 1 {
        let mut members = right.clone();
        members[2].data[place] ^= 0x10;
        assert!(verify(&zip::write(&members)).is_err());
    }
    for i in 0..5 {
        let cut = |data: &mut Vec<u8>| data.truncate(data.len() - 1);
        let more = |data: &mut Vec<u8>| data.push(0);
        for change in [&cut as &dyn Fn(&mut Vec<u8>), &more] {
            let mut members = right.clone();
            change(&mut members[i].data);
            let length = members[i].data.len() as u32;
            members[i] = members[i].clone().both(|header| header.compressed = length);
            refused(&zip::write(&members));
        }
    }
    // A last block that is empty makes no output, and is still part of the stream.
    let mut members = right;
    let (raw, name) = (data()[2].1.clone(), "checkpoint");
    let stored_block = |last: u8, data: &[u8]| {
        let length = data.len() as u16;
        [&[last][..], &length.to_le_bytes(), &(!length).to_le_bytes(), data].concat()
    };
    let with = |stream: Vec<u8>| Member::with(name, 8, stream, raw.len() as u32, crc32fast::hash(&raw));
    members[2] = with([stored_block(0, &raw), stored_block(1, b"")].concat());
    verify(&zip::write(&members)).unwrap();
    members[2] = with(stored_block(0, &raw));
    refused(&zip::write(&members));
    members[2] = with([stored_block(0, &raw), stored_block(1, b"x")].concat());
    refused(&zip::write(&members));
    members[2] = with([stored_block(1, &raw), stored_block(1, b"")].concat());
    refused(&zip::write(&members));
}

#[test]
fn whatever_an_export_does_not_use_is_refused() {
    for method in [1, 6, 9, 12, 14, 93, 95, 97, 99] {
        each_refused(|member| member.both(|header| header.method = method));
    }
    for bit in [0, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15] {
        each_refused(|member| member.both(|header| header.flags |= 1 << bit));
    }
    for version in [46, 51, 63, 255] {
        each_refused(|member| member.both(|header| header.version = version));
    }
    each_refused(|mut member| {
        member.comment = b"x".to_vec();
        member
    });
    each_refused(|mut member| {
        member.disk = 1;
        member
    });
    // Directory, symbolic link, device: by Unix or MS-DOS.
    for mode in [0o040_755u32, 0o120_777, 0o020_600, 0o060_600, 0o010_600, 0o140_600] {
        each_refused(|mut member| {
            member.attributes = mode << 16;
            member
        });
    }
    each_refused(|mut member| {
        (member.made_by, member.attributes) = (20, 0x10);
        member
    });
    // A Unicode path or comment, strong encryption, AES, a zip64 field that nothing asks for, twice the same.
    for id in [0x7075, 0x6375, 0x0017, 0x9901, 0xcafe, 0] {
        each_refused(|member| {
            member.both(|header| header.extra.extend(extra(id, b"\x01\0\0\0\0checkpoint")))
        });
        each_refused(|mut member| {
            member.local.extra.extend(extra(id, b"\x01\0\0\0\0checkpoint"));
            member
        });
    }
    each_refused(|mut member| {
        member.central.extra.extend(extra(1, &[0; 8]));
        member
    });
    each_refused(|mut member| {
        member.local.extra.extend(extra(1, &[0; 8]));
        member
    });
    each_refused(|member| member.both(|header| header.extra.extend(extra(0x5455, b"").repeat(2))));
    each_refused(|member| member.both(|header| header.extra.extend(b"\x55\x54\xff\x00x")));
    each_refused(|member| member.both(|header| header.extra.push(0)));
    each_refused(|member| member.both(|header| header.extra.extend(extra(0x5455, &[0; 60_000]))));
}

#[test]
fn bytes_anywhere_else_are_refused() {
    let (members, directory) = zip::parts(&stored());
    let (size, offset) = (directory.len() as u32, members.len() as u32);
    let end = zip::end(5, size, offset, b"");
    let right = [&members[..], &directory, &end].concat();
    verify(&right).unwrap();
    for gap in [&b"x"[..], &[0; 12], &[0; 16], &[0; 22], b"PK\x07\x08xxxxxxxxxxxx"] {
        refused(&[gap, &right].concat());
        refused(&[&right, gap].concat());
        refused(&[&members[..], gap, &directory, &end].concat());
        refused(
            &[&members[..], gap, &directory, &zip::end(5, size, offset + gap.len() as u32, b"")].concat(),
        );
        refused(&[&members[..], &directory, gap, &end].concat());
        refused(
            &[&members[..], &directory, gap, &zip::end(5, size + gap.len() as u32, offset, b"")].concat(),
        );
        refused(&[&members[..], &directory, &zip::end(5, size, offset, gap)].concat());
        let shifted: Vec<Member> = stored()
            .into_iter()
            .map(|mut member| {
                member.shift = gap.len() as i64;
                member
            })
            .collect();
        let (members, directory) = zip::parts(&shifted);
        let end = zip::end(5, size, offset + gap.len() as u32, b"");
        refused(&[gap, &members, &directory, &end].concat());
        each_refused(|mut member| {
            member.gap = gap.to_vec();
            member
        });
    }
    for count in [0, 1, 4, 6, u16::MAX] {
        refused(&[&members[..], &directory, &zip::end(count, size, offset, b"")].concat());
    }
    // Two archives after one another, and cut short anywhere.
    refused(&right.repeat(2));
    for length in 0..right.len() {
        refused(&right[..length]);
    }
}

#[test]
fn members_that_overlap_or_lie_outside_are_refused() {
    for shift in [-1, 1, 30, 1 << 20, i64::from(u32::MAX) - 100_000] {
        each_refused(|mut member| {
            member.shift = shift;
            member
        });
    }
    for shift in [1 << 40, i64::MAX, -1, -100, i64::MIN] {
        each_refused(|mut member| {
            (member.wide_offset, member.shift) = (true, shift);
            member
        });
    }
    // Two names for one place, as the quoted overlap of a zip bomb has them.
    let mut members = stored();
    let first = zip::parts(&members[..1]).0.len() as i64;
    members[1].shift = -first;
    refused(&zip::write(&members));
    // Sizes beyond the file, in 32 and 64 bits.
    each_refused(|member| {
        member.both(|header| (header.compressed, header.size) = (u32::MAX - 1, u32::MAX - 1))
    });
    for size in [1u64 << 40, u64::MAX, u64::MAX - 30] {
        each_refused(|mut member| {
            let field = extra(1, &[size, size].map(u64::to_le_bytes).concat());
            member.local.extra = field.clone();
            member.central.extra = field;
            member.both(|header| (header.compressed, header.size) = (u32::MAX, u32::MAX))
        });
    }
}

#[test]
fn every_byte_of_the_headers_matters() {
    // Free are only what says how the zip was made: made by, the versions needed, the text hint, the attributes.
    let right = zip::write(&stored());
    let (members, directory) = zip::parts(&stored());
    let mut unnoticed = 0;
    let mut data = std::collections::HashSet::new();
    let mut start = 0;
    for member in stored() {
        start += 30 + member.local.name.len();
        data.extend(start..start + member.data.len());
        start += member.data.len();
    }
    for place in (0..right.len()).filter(|place| !data.contains(place)) {
        let mut wrong = right.clone();
        wrong[place] ^= 0x40;
        match verify(&wrong) {
            Err(failure) => assert_eq!(failure.check, Check::Zip, "byte {place}: {failure}"),
            Ok(()) => {
                unnoticed += 1;
                assert!((members.len()..members.len() + directory.len()).contains(&place), "byte {place}");
            }
        }
    }
    assert!(unnoticed <= 5 * 8, "{unnoticed}");
}

#[test]
fn a_damaged_zip_is_named_before_anything_that_is_wrong_in_it() {
    let mut export = Export::of(&signer(), &Ledger::of(7), (0, 7), None, true);
    export.lines[2].push(b' ');
    let mut wrong_line: Vec<Member> =
        export.members(&signer()).into_iter().map(|(name, data)| Member::stored(&name, data)).collect();
    assert_eq!(verify(&zip::write(&wrong_line)).unwrap_err().check, Check::NotCanonical);
    export.set("v", int(2));
    let wrong_manifest: Vec<Member> =
        export.members(&signer()).into_iter().map(|(name, data)| Member::stored(&name, data)).collect();
    assert_eq!(verify(&zip::write(&wrong_manifest)).unwrap_err().check, Check::Members);
    for i in 0..5 {
        let mut damaged = wrong_manifest.clone();
        damaged[i] = damaged[i].clone().both(|header| header.crc ^= 1);
        refused(&zip::write(&damaged));
    }
    for i in 0..2 {
        let right = wrong_line[i].clone();
        wrong_line[i] = right.clone().both(|header| header.crc ^= 1);
        refused(&zip::write(&wrong_line));
        wrong_line[i] = right;
    }
}

#[test]
fn bombs_are_refused_by_what_they_say_or_by_their_size() {
    let zeros = vec![0; 200 << 20];
    let bomb = |name: &str| Member::deflated(name, &zeros);
    let started = std::time::Instant::now();
    for (name, check) in [
        ("entries.jsonl", Check::NotCanonical),
        ("openings.jsonl", Check::Openings),
        ("checkpoint", Check::Origin),
        ("keys.json", Check::Manifest),
        ("manifest.json", Check::Members),
    ] {
        let mut members = stored();
        let place = members.iter().position(|member| member.local.name == name.as_bytes()).unwrap();
        members[place] = bomb(name);
        let zip = zip::write(&members);
        assert!(zip.len() < 1 << 20);
        assert_eq!(verify(&zip).unwrap_err().check, check, "{name}");
        // One that says it is small.
        members[place] = members[place].clone().both(|header| header.size = 100);
        refused(&zip::write(&members));
    }
    assert!(started.elapsed().as_secs() < 120);
}

/// Feeds a script to Python, which has its own idea of a zip; false where there is no Python.
fn python(script: &str, arguments: &[&str]) -> bool {
    let command = Command::new("python3").arg("-c").arg(script).args(arguments).stdin(Stdio::null()).status();
    match command {
        Ok(status) => {
            assert!(status.success(), "the script failed");
            true
        }
        Err(_) => {
            let _ = writeln!(std::io::stdout().lock(), "no python3 here: skipped");
            false
        }
    }
}

#[test]
fn what_pythons_zipfile_writes_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    for (name, data) in data() {
        std::fs::write(folder.path().join(name), data).unwrap();
    }
    let script = r#"
import io, sys, zipfile
folder, = sys.argv[1:]
names = ["entries.jsonl", "openings.jsonl", "checkpoint", "keys.json", "manifest.json"]

class Unseekable(io.RawIOBase):
    def __init__(self, file): self.file = file
    def writable(self): return True
    def write(self, data): return self.file.write(data)
    def flush(self): self.file.flush()

for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    for streamed in (False, True):
        for wide in (False, True):
            with open(f"{folder}/{method}{streamed}{wide}.zip", "wb") as file:
                with zipfile.ZipFile(Unseekable(file) if streamed else file, "w", method) as out:
                    for name in names:
                        data = open(f"{folder}/{name}", "rb").read()
                        with out.open(name, "w", force_zip64=wide) as member:
                            member.write(data)
    with zipfile.ZipFile(f"{folder}/{method}write.zip", "w", method) as out:
        for name in names:
            out.write(f"{folder}/{name}", name)
    with zipfile.ZipFile(f"{folder}/{method}writestr.zip", "w", method) as out:
        for name in names:
            out.writestr(name, open(f"{folder}/{name}", "rb").read())
"#;
    if !python(script, &[folder.path().to_str().unwrap()]) {
        return;
    }
    let mut zips = 0;
    for file in std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "zip") {
            zips += 1;
            verify(&std::fs::read(&file).unwrap()).unwrap_or_else(|failure| panic!("{file:?}: {failure}"));
        }
    }
    assert_eq!(zips, 12);
}

#[test]
fn what_info_zip_writes_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["entries.jsonl", "openings.jsonl", "checkpoint", "keys.json", "manifest.json"];
    for (name, data) in data() {
        std::fs::write(folder.path().join(name), data).unwrap();
    }
    for options in [&["-0"][..], &["-9"], &["-X"], &["-fz"], &["-fd"], &["-9", "-X", "-fz-"]] {
        let path = folder.path().join("out.zip");
        let _ = std::fs::remove_file(&path);
        let status = Command::new("zip")
            .current_dir(folder.path())
            .arg("-q")
            .args(options)
            .arg("out.zip")
            .args(names)
            .status();
        let Ok(status) = status else {
            let _ = writeln!(std::io::stdout().lock(), "no zip here: skipped");
            return;
        };
        assert!(status.success());
        verify(&std::fs::read(&path).unwrap()).unwrap_or_else(|failure| panic!("{options:?}: {failure}"));
    }
    let streamed =
        Command::new("zip").current_dir(folder.path()).args(["-q", "-"]).args(names).output().unwrap();
    verify(&streamed.stdout).unwrap();
}
