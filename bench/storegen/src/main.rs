//! `storegen memiavl|flatkv DIR ROWS BLOCKS WRITES`: a store of about ROWS leaves at height 1,000,000 and BLOCKS blocks of WRITES
//! writes behind it. The same arguments give the same bytes, and both kinds of store the same state.

mod flatkv;
mod memiavl;
mod pebble;
mod state;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use state::Shape;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments.iter().skip(2).filter_map(|text| text.parse().ok()).collect();
    let ([kind, root, ..], [rows, blocks, writes]) = (arguments.as_slice(), numbers.as_slice()) else {
        eprintln!("usage: storegen memiavl|flatkv DIR ROWS BLOCKS WRITES");
        return ExitCode::from(2);
    };
    let (root, shape, blocks) = (PathBuf::from(root), Shape::new(*rows), *blocks as u32);
    let written = match kind.as_str() {
        "memiavl" => memiavl::write(&root, &shape, blocks, *writes),
        "flatkv" => flatkv::write(&root, &shape, blocks, *writes),
        other => {
            eprintln!("storegen: no kind of store {other:?}");
            return ExitCode::from(2);
        }
    };
    match written {
        Ok(()) => {
            println!(
                "{{\"leaves\": {}, \"accounts\": {}, \"slots\": {}}}",
                shape.leaves(),
                shape.accounts,
                shape.slots()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("storegen: {}: {error}", root.display());
            ExitCode::FAILURE
        }
    }
}
