//! Reported incidents and working setups (`fixtures/incidents/public.toml`), judged from image and host alone: how many come
//! out right, and none that works may be called broken. The example of the same name prints the table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../examples/incidents/main.rs"]
#[allow(dead_code, reason = "the program that is tested")]
mod program;

const PUBLIC: &str = include_str!("../fixtures/incidents/public.toml");

#[test]
fn nine_of_ten_incidents_are_judged_as_they_happened_and_nothing_that_works_is_called_broken() {
    let table = program::table(PUBLIC).unwrap();
    println!("{}", table.text);
    assert_eq!(table.false_alarms, 0);
    assert!(table.right * 10 >= table.of * 9, "{} of {}", table.right, table.of);
}

#[test]
fn the_answers_are_not_looked_at() {
    // Every field stands on a line of its own.
    let is_asked = |line: &&str| ["[[", "id ", "image ", "host "].iter().any(|k| line.starts_with(k));
    let questions: String = PUBLIC.lines().filter(is_asked).map(|l| format!("{l}\n")).collect();
    let without = program::table(&questions).unwrap();
    let with = program::table(PUBLIC).unwrap();
    // `id expected got rule`: all but the second column is the same.
    let columns = |text: &str| -> Vec<Vec<String>> {
        let rows = text.lines().take_while(|l| l.starts_with("inc-") || l.starts_with("ctl-"));
        rows.map(|line| {
            let words = line.split_whitespace().enumerate();
            words.filter(|(i, _)| *i != 1).map(|(_, w)| w.to_owned()).collect()
        })
        .collect()
    };
    assert!(without.text.lines().next().unwrap().contains(" ? "));
    assert!(columns(&with.text).len() > 80);
    assert_eq!(columns(&without.text), columns(&with.text));
}
