//! What the verifier program printed, and a table of it.

use std::collections::{BTreeMap, BTreeSet};

use super::frames::WITHOUT_FRAMES;
use crate::pins;

/// The kernel that the tests themselves run on.
pub(super) const RUNNING: &str = "running";

/// How one kernel took the object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// `running`, or the series, which the processor may follow after a comma.
    kernel: String,
    /// The kernel's release, once it got to the end.
    release: Option<String>,
    /// Each program's name, and its verified instructions or why it was refused.
    programs: Vec<(String, Result<u32, String>)>,
    /// Programs of types that the kernel lets nobody load.
    not_permitted: Vec<String>,
    /// Each test's name, and how many of its frames did what was recorded, or what one did instead.
    frames: BTreeMap<String, Result<u32, String>>,
    /// Each test that has frames which were not run, and how many these are for which reason.
    left_out: Vec<(String, u32, String)>,
    /// The last lines of everything that was printed, for a kernel that did not get to the end.
    tail: String,
}

impl Report {
    /// Reads the lines of `fairlead-verifier` (its main.rs says how they look) among others.
    pub(super) fn parse(kernel: &str, text: &str) -> Self {
        let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
        let mut report = Self {
            kernel: kernel.to_owned(),
            release: None,
            programs: Vec::new(),
            not_permitted: Vec::new(),
            frames: BTreeMap::new(),
            left_out: Vec::new(),
            tail: lines[lines.len().saturating_sub(15)..].join("\n"),
        };
        for line in lines {
            let Some(begin) = line.find("fairlead-verifier\t") else { continue };
            match line[begin..].split('\t').skip(1).collect::<Vec<_>>()[..] {
                ["ok", name, count] => {
                    let count = count.parse().map_err(|_| format!("unreadable count {count:?}"));
                    report.programs.push((name.to_owned(), count));
                }
                ["failed", name, reason] => report.programs.push((name.to_owned(), Err(reason.to_owned()))),
                // Where the tests run it is as it is. Guests' kernels are chosen.
                ["not-permitted", name, _] if kernel == RUNNING => report.not_permitted.push(name.to_owned()),
                ["not-permitted", name, reason] => report.programs.push((name.to_owned(), Err(reason.to_owned()))),
                ["frames", test, count] => {
                    let count = count.parse().map_err(|_| format!("unreadable count {count:?}"));
                    report.frames.insert(test.to_owned(), count);
                }
                ["frames-failed", test, what] => {
                    report.frames.insert(test.to_owned(), Err(what.to_owned()));
                }
                ["left-out", test, count, reason] => {
                    report.left_out.push((test.to_owned(), count.parse().unwrap_or(0), reason.to_owned()));
                }
                ["done", release] => report.release = Some(release.to_owned()),
                _ => {}
            }
        }
        report
    }

    /// How many tests this was: one a program, one a test whose frames ran, and one that it got to the end.
    pub(super) fn tests(&self) -> usize {
        self.programs.len() + self.frames.len() + 1
    }

    /// How many frames did what was recorded.
    fn ran(&self) -> u32 {
        self.frames.values().flatten().sum()
    }

    /// What is wrong with the list of tests without frames.
    pub(super) fn unlisted(&self) -> Vec<String> {
        let without: BTreeSet<&str> = self
            .left_out
            .iter()
            .map(|(test, ..)| test.as_str())
            .filter(|test| !self.frames.contains_key(*test))
            .collect();
        let listed = BTreeSet::from(WITHOUT_FRAMES.map(|(test, _)| test));
        let missing = without.difference(&listed).map(|test| format!("{test} has no frame that runs: say why"));
        let needless = listed.difference(&without).map(|test| format!("{test} has frames that run, or is no test"));
        missing.chain(needless).map(|text| format!("{text} in xtask/src/vm/frames.rs")).collect()
    }

    /// What is wrong, one text each.
    pub(super) fn problems(&self) -> Vec<String> {
        let kernel = &self.kernel;
        let mut problems: Vec<String> = self
            .programs
            .iter()
            .filter_map(|(name, result)| match result {
                Err(reason) => Some(format!("{name} on {kernel}: {}", reason.replace("\\n", "\n    "))),
                Ok(count) if self.has_budget() && *count > pins::INSTRUCTION_BUDGET => Some(format!(
                    "{name} on {kernel}: {count} verified instructions, and the budget is {}",
                    pins::INSTRUCTION_BUDGET
                )),
                Ok(_) => None,
            })
            .collect();
        if self.release.is_none() {
            problems.push(format!("{kernel} did not finish; its last output:\n{}", self.tail));
        } else if self.programs.is_empty() {
            problems.push(format!("{kernel}: the object has no program"));
        }
        let failed = self.frames.iter().filter_map(|(test, result)| Some((test, result.as_ref().err()?)));
        problems.extend(failed.map(|(test, what)| format!("{test} on {kernel}: {what}")));
        problems
    }

    /// Whether it is the kernel that the budget is measured on.
    fn has_budget(&self) -> bool {
        self.kernel.split(',').next() == Some(pins::BUDGET_KERNEL)
    }

    /// The kernel's release if it is known, and the processor if there is more than one.
    fn title(&self) -> String {
        match (&self.release, self.kernel.split_once(',')) {
            (None, _) => self.kernel.clone(),
            (Some(release), None) => release.clone(),
            (Some(release), Some((_, processor))) => format!("{release},{processor}"),
        }
    }

    fn count(&self, program: &str) -> String {
        match self.programs.iter().find(|(name, _)| name == program) {
            Some((_, Ok(count))) => count.to_string(),
            Some((_, Err(_))) => "refused".to_owned(),
            None if self.not_permitted.iter().any(|name| name == program) => "not permitted".to_owned(),
            None => "-".to_owned(),
        }
    }
}

/// Verified instructions, a row for each program and a column for each kernel.
pub(super) fn table(reports: &[Report]) -> String {
    let programs: BTreeSet<&str> =
        reports.iter().flat_map(|report| &report.programs).map(|(name, _)| name.as_str()).collect();
    let width = programs.iter().map(|name| name.len()).max().unwrap_or(0).max(22);
    let titles: Vec<String> = reports.iter().map(Report::title).collect();
    let column = titles.iter().map(String::len).max().unwrap_or(0).max(24);
    let mut text = format!("{:<width$}", "verified instructions");
    for title in titles {
        text.push_str(&format!(" {title:>column$}"));
    }
    text.push('\n');
    for program in programs {
        text.push_str(&format!("{program:<width$}"));
        for report in reports {
            text.push_str(&format!(" {:>column$}", report.count(program)));
        }
        text.push('\n');
    }
    text
}

/// How many frames did what was recorded, a line for each kernel.
pub(super) fn frames(reports: &[Report]) -> String {
    let lines =
        reports.iter().map(|report| format!("{:>6} frames behaved on {} as recorded\n", report.ran(), report.title()));
    lines.collect()
}

/// How many frames were not run, a line for each test and reason: the same for all kernels.
pub(super) fn left_out(reports: &[Report]) -> String {
    let Some(report) = reports.first() else { return String::new() };
    let lines = report.left_out.iter().map(|(test, count, reason)| format!("{count:>6} of {test}: {reason}\n"));
    format!("frames that were recorded and not run\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\u{1b}cSeaBIOS\r\nBooting from ROM..fairlead-verifier\tok\tpod_ingress\t4163\r\n\
                           fairlead-verifier\tfailed\tpod_egress\tPermission denied\\ninvalid read from stack\r\n\
                           fairlead-verifier\tdone\t6.1.0-50-cloud-amd64\r\nreboot: Power down\r\n";

    #[test]
    fn lines_are_found_among_a_consoles() {
        let report = Report::parse("6.1", CONSOLE);
        assert_eq!(report.release.as_deref(), Some("6.1.0-50-cloud-amd64"));
        assert_eq!(report.count("pod_ingress"), "4163");
        assert_eq!(report.count("pod_egress"), "refused");
        assert_eq!(report.problems(), ["pod_egress on 6.1: Permission denied\n    invalid read from stack"]);
        assert_eq!(report.tests(), 3);
    }

    #[test]
    fn the_running_kernel_may_permit_no_programs_of_a_type_and_a_guests_has_to() {
        let text = "fairlead-verifier\tok\tfrom_pod\t7\nfairlead-verifier\tnot-permitted\tlist_sockets\tOperation not permitted\n\
                    fairlead-verifier\tdone\tx\n";
        let running = Report::parse(RUNNING, text);
        assert_eq!((running.problems(), running.count("list_sockets")), (vec![], "not permitted".to_owned()));
        assert_eq!(Report::parse("6.1", text).problems(), ["list_sockets on 6.1: Operation not permitted"]);
    }

    #[test]
    fn a_kernel_that_does_not_get_to_the_end_is_a_problem() {
        let problems = Report::parse("6.12", "Kernel panic - not syncing\r\n").problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("Kernel panic"), "{problems:?}");
    }

    #[test]
    fn the_budget_holds_on_the_strictest_kernel_only() {
        let count = pins::INSTRUCTION_BUDGET + 1;
        let text = format!("fairlead-verifier\tok\tpod_ingress\t{count}\nfairlead-verifier\tdone\tx\n");
        assert_eq!(Report::parse("6.1", &text).problems().len(), 1);
        assert_eq!(Report::parse("6.1, cortex-a53", &text).problems().len(), 1);
        assert_eq!(Report::parse("6.12", &text).problems(), Vec::<String>::new());
    }

    #[test]
    fn frames_count_by_test_and_one_that_does_something_else_is_a_problem() {
        let text = "fairlead-verifier\tframes\ta\t7\nfairlead-verifier\tframes\tb\t5\n\
                    fairlead-verifier\tframes-failed\tc\t1 of 2 frames: the verdict is 2 and not 7\n\
                    fairlead-verifier\tok\tp\t1\nfairlead-verifier\tdone\tx\n";
        let report = Report::parse("6.1", text);
        assert_eq!((report.tests(), report.ran()), (5, 12));
        assert_eq!(report.problems(), ["c on 6.1: 1 of 2 frames: the verdict is 2 and not 7"]);
    }

    #[test]
    fn a_test_without_frames_is_listed_or_a_problem() {
        let all = WITHOUT_FRAMES.map(|(test, _)| format!("fairlead-verifier\tleft-out\t{test}\t4\tchance\n")).concat();
        assert_eq!(Report::parse("6.1", &all).unlisted(), Vec::<String>::new());
        let other = format!("{all}fairlead-verifier\tleft-out\tother\t4\tchance\n");
        assert!(Report::parse("6.1", &other).unlisted().concat().contains("other has no frame that runs"));
        let ran = format!("{other}fairlead-verifier\tframes\tother\t4\n");
        assert_eq!(Report::parse("6.1", &ran).unlisted(), Vec::<String>::new());
        assert_eq!(Report::parse("6.1", "").unlisted().len(), WITHOUT_FRAMES.len());
    }

    #[test]
    fn an_object_without_programs_is_a_problem() {
        assert_eq!(Report::parse("6.1", "fairlead-verifier\tdone\t6.1\n").problems().len(), 1);
    }

    #[test]
    fn the_table_has_a_column_for_each_kernel() {
        let reports = [Report::parse("6.1", CONSOLE), Report::parse("6.12", "")];
        let table = table(&reports);
        let row: Vec<&str> = table.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row, ["pod_ingress", "4163", "-"]);
    }

    #[test]
    fn columns_of_several_processors_are_told_apart() {
        let table = table(&[Report::parse("6.1, cortex-a53", CONSOLE), Report::parse("6.1, max", CONSOLE)]);
        let head = table.lines().next().unwrap();
        assert!(head.ends_with(" 6.1.0-50-cloud-amd64, cortex-a53        6.1.0-50-cloud-amd64, max"), "{head}");
    }
}
