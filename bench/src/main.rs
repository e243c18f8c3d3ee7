//! `wharf-bench alloc`: wharf's allocator beside others. `wharf-bench ageing`, `fit`: its
//! fragmentation. `wharf-bench scale`: its cost in large pools.

use std::error::Error;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use wharf_bench::ageing::{self, Ageing};
use wharf_bench::fit;
use wharf_bench::machine::pin;
use wharf_bench::measure::Plan;
use wharf_bench::scale;
use wharf_bench::stream_order;
use wharf_bench::work::Workload;
use wharf_bench::{peers, report};

/// wharf's allocator beside others, on the same work.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// MiB that wharf keeps for each thread, where it is not the default.
    #[arg(long, global = true, value_name = "MIB")]
    thread_cache: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the workloads on all allocators and prints the ratios to the best.
    Alloc(Alloc),
    /// Replaces millions of blocks and prints what the pool reserved for what was live.
    Ageing(Ageing),
    /// Prints what a pool reserves for what is live, beside PyTorch's allocators.
    Fit(fit::Options),
    /// Counts instructions of operations of pools of 1 GiB to 1 TiB of addresses.
    Scale(scale::Options),
    /// What `scale` counts.
    #[command(hide = true)]
    ScaleProbe(scale::Probe),
    /// Counts what operations cost, by callgrind, and holds them to their limits.
    Cost,
    /// Gives blocks back while the device still uses them and prints what that costs.
    StreamOrder(stream_order::Options),
}

#[derive(Args, Debug)]
struct Alloc {
    /// Only these workloads, separated by commas.
    #[arg(long, value_delimiter = ',', ignore_case = true)]
    only: Vec<Workload>,
    /// Only peers whose name contains one of these; wharf and the harness always run.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Rounds of each workload [default: 13, of W5 9].
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds of each peer in each round.
    #[arg(long, default_value_t = 24)]
    millis: u64,
    /// Seconds to spend at most, over the whole run, on waiting until no other process computes.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// A short run that shows that everything works: 3 rounds of 2 ms.
    #[arg(long)]
    quick: bool,
    /// Writes workload -> {ours_ns, best_peer, best_ns, ratio} to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Alloc {
    fn plan(&self) -> Plan {
        let all = [
            Workload::W1,
            Workload::W2,
            Workload::W3,
            Workload::W4,
            Workload::W4f,
            Workload::W5,
            Workload::W6,
            Workload::W6b,
        ];
        // The bundle's ratio needs the single blocks of the same run.
        let wanted = |workload: &Workload| {
            self.only.is_empty()
                || self.only.contains(workload)
                || *workload == Workload::W6 && self.only.contains(&Workload::W6b)
        };
        let workloads = all.into_iter().filter(wanted).collect();
        if self.quick {
            let rounds = self.rounds.or(Some(3));
            return Plan {
                workloads,
                rounds,
                round: Duration::from_millis(2),
                patience: Duration::ZERO,
            };
        }
        let (round, patience) =
            (Duration::from_millis(self.millis), Duration::from_secs(self.patience));
        Plan { workloads, rounds: self.rounds, round, patience }
    }

    fn run(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            eprintln!("note: started without cargo, so the mallocs have their default settings");
        }
        pin(0);
        let mut entries = peers::all();
        let named = |name: &str| self.peers.iter().any(|part| name.contains(&**part));
        entries.retain(|entry| self.peers.is_empty() || !entry.is_other() || named(entry.name));
        let columns = self.plan().run(&entries, |workload| eprintln!("{workload} done"));
        println!("{}\n\n{}", report::summary(&entries, &columns), report::full(&entries, &columns));
        if let Some(path) = &self.json {
            serde_json::to_writer_pretty(
                File::create(path)?,
                &report::comparisons(&entries, &columns),
            )?;
        }
        Ok(())
    }
}

fn main() -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let cli = Cli::parse();
    if let Some(mib) = cli.thread_cache {
        peers::ours::THREAD_CACHE.get_or_init(|| mib);
    }
    match cli.command {
        Command::Alloc(alloc) => alloc.run()?,
        Command::Ageing(options) => println!("{}", ageing::run(&options)?),
        Command::Fit(options) => println!("{}", fit::run(&options)?),
        Command::Scale(options) => return scale::run(&options),
        Command::ScaleProbe(probe) => probe.run()?,
        Command::Cost => {
            // Of the library's own workspace, as its users build it: without link-time
            // optimisation.
            let status = std::process::Command::new(env!("CARGO"))
                .args(["run", "--release", "--quiet", "-p", "wharf-cuda", "--example", "cost"])
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
                .status()?;
            std::process::exit(status.code().unwrap_or(1));
        }
        Command::StreamOrder(options) => println!("{}", stream_order::run(&options)?),
    }
    Ok(ExitCode::SUCCESS)
}
