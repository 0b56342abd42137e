//! RFC 6962 against the published vectors, its own recursive definitions and another implementation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::Sha256;
use statusledger_verify::Hash;
use statusledger_verify::tree::{
    Error, Frontier, empty_root, leaf_hash, node_hash, verify_consistency, verify_inclusion,
};

use crate::common::{consistency_path, inclusion_path, sha256, shared, tree_root};

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect()
}

#[test]
fn every_published_inclusion_vector_has_its_result() {
    let Some(directory) = shared("vectors/rfc6962/inclusion") else { return };
    let mut seen = (0, 0);
    let mut rest = vec![directory];
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            rest.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let vector: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let hash = |value: &serde_json::Value| -> Option<Hash> {
            STANDARD.decode(value.as_str().unwrap_or_default()).unwrap().try_into().ok()
        };
        // A hash of another length is refused where proofs are read; a size below 0 is none.
        let verified = || {
            let hashes: Option<Vec<Hash>> = match &vector["proof"] {
                serde_json::Value::Null => Some(Vec::new()),
                proof => proof.as_array()?.iter().map(hash).collect(),
            };
            let (index, size) = (vector["leafIdx"].as_u64()?, vector["treeSize"].as_u64()?);
            let (leaf, root) = (hash(&vector["leafHash"])?, hash(&vector["root"])?);
            verify_inclusion(index, size, &leaf, &hashes?, &root).ok()
        };
        let fails = vector["wantErr"].as_bool().unwrap();
        assert_eq!(verified().is_none(), fails, "{}", path.display());
        seen = (seen.0 + usize::from(!fails), seen.1 + usize::from(fails));
    }
    assert!(seen.0 >= 6 && seen.1 >= 90, "{seen:?}");
}

#[test]
fn hashes_are_those_of_the_standard() {
    assert_eq!(empty_root(), sha256(&[]));
    assert_eq!(leaf_hash(b"entry"), sha256(&[&[0], b"entry"]));
    assert_eq!(node_hash(&[7; 32], &[9; 32]), sha256(&[&[1], &[7; 32], &[9; 32]]));
}

#[test]
fn every_small_tree_is_proven_as_the_standard_defines_it() {
    let all = leaves(70);
    let mut frontier = Frontier::new();
    for size in 0..=all.len() {
        let root = tree_root(&all[..size]);
        assert_eq!((frontier.size(), frontier.root()), (size as u64, root));
        let again = Frontier::from_parts(size as u64, frontier.hashes().to_vec()).unwrap();
        assert_eq!(again, frontier);
        assert_eq!(Frontier::from_parts(size as u64 + 1, frontier.hashes().to_vec()).is_some(), {
            (size + 1).count_ones() == size.count_ones()
        });
        for index in 0..size {
            let path = inclusion_path(index, &all[..size]);
            verify_inclusion(index as u64, size as u64, &all[index], &path, &root).unwrap();
            let wrong = Error::IndexOutOfTree { index: size as u64, size: size as u64 };
            assert_eq!(verify_inclusion(size as u64, size as u64, &all[index], &path, &root), Err(wrong));
        }
        for from in 0..=size {
            let path = consistency_path(from, &all[..size]);
            let older = tree_root(&all[..from]);
            verify_consistency(from as u64, size as u64, &older, &root, &path).unwrap();
        }
        if size < all.len() {
            frontier.push(all[size]);
        }
    }
}

#[test]
fn no_proof_is_right_with_a_hash_more_or_less_or_elsewhere() {
    let all = leaves(33);
    for size in 1..=all.len() {
        let root = tree_root(&all[..size]);
        for index in 0..size {
            let path = inclusion_path(index, &all[..size]);
            let verify =
                |path: &[Hash]| verify_inclusion(index as u64, size as u64, &all[index], path, &root);
            spoil(&path, |path| verify(path).is_err());
            for other in (0..size).filter(|other| *other != index) {
                assert!(verify_inclusion(other as u64, size as u64, &all[index], &path, &root).is_err());
            }
        }
        for from in 1..size {
            let older = tree_root(&all[..from]);
            let path = consistency_path(from, &all[..size]);
            let verify = |path: &[Hash]| verify_consistency(from as u64, size as u64, &older, &root, path);
            spoil(&path, |path| verify(path).is_err());
            let shrunk = verify_consistency(size as u64, from as u64, &root, &older, &path);
            assert_eq!(shrunk, Err(Error::Shrinks { from: size as u64, to: from as u64 }));
            assert!(verify_consistency(from as u64, size as u64, &root, &root, &path).is_err());
            assert!(verify_consistency(from as u64, size as u64, &older, &older, &path).is_err());
        }
        assert!(verify_consistency(0, size as u64, &[0; 32], &root, &[]).is_err());
        assert!(verify_consistency(0, size as u64, &empty_root(), &root, &[root]).is_err());
        assert!(verify_consistency(size as u64, size as u64, &root, &root, &[root]).is_err());
        assert!(verify_consistency(size as u64, size as u64, &root, &[0; 32], &[]).is_err());
    }
}

/// Every way to have a hash too few, too many, in another place or changed is refused.
fn spoil(path: &[Hash], is_refused: impl Fn(&[Hash]) -> bool) {
    for at in 0..path.len() {
        let mut fewer = path.to_vec();
        fewer.remove(at);
        assert!(is_refused(&fewer));
        let mut changed = path.to_vec();
        changed[at][31] ^= 1;
        assert!(is_refused(&changed));
        if at > 0 {
            let mut swapped = path.to_vec();
            swapped.swap(at - 1, at);
            assert!(is_refused(&swapped));
        }
    }
    for at in 0..=path.len() {
        let mut more = path.to_vec();
        more.insert(at, [at as u8; 32]);
        assert!(is_refused(&more));
        let mut twice = path.to_vec();
        twice.insert(at, *path.get(at).or(path.last()).unwrap_or(&[0; 32]));
        assert!(is_refused(&twice));
    }
}

#[test]
fn the_largest_sizes_are_no_trouble() {
    let (leaf, root) = ([1; 32], [2; 32]);
    for (index, size) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (u64::MAX, u64::MAX), (1 << 63, u64::MAX)]
    {
        for count in [0, 1, 63, 64, 65, 200] {
            assert!(verify_inclusion(index, size, &leaf, &vec![[3; 32]; count], &root).is_err());
            assert!(verify_consistency(index, size, &leaf, &root, &vec![[3; 32]; count]).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn another_implementation_makes_the_same_roots_and_proofs(size in 1usize..300, at in any::<prop::sample::Index>()) {
        let mut other = MemoryBackedTree::<Sha256, [u8; 8]>::new();
        let mut frontier = Frontier::new();
        let index = at.index(size);
        let mut older_root = [0; 32];
        for leaf in 0..size {
            if leaf == index {
                older_root = frontier.root();
            }
            other.push(leaf.to_be_bytes());
            frontier.push(leaf_hash(&leaf.to_be_bytes()));
        }
        let root = frontier.root();
        let other_root = other.root();
        prop_assert_eq!(other_root.as_bytes().as_slice(), &root[..]);
        let hashes = |bytes: &[u8]| -> Vec<Hash> {
            bytes.chunks(32).map(|hash| hash.try_into().unwrap()).collect()
        };
        let inclusion = hashes(other.prove_inclusion(index).as_bytes());
        let leaf = leaf_hash(&index.to_be_bytes());
        verify_inclusion(index as u64, size as u64, &leaf, &inclusion, &root).unwrap();
        if index > 0 {
            let consistency = hashes(other.prove_consistency(size - index).as_bytes());
            verify_consistency(index as u64, size as u64, &older_root, &root, &consistency).unwrap();
        }
    }
}
