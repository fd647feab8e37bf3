// Package letters keeps dead letters, in a Tablestore table or on a topic, and
// replays those of a table. It knows nothing of pipelines.
//
// # A table
//
// A letter is one row, under its pipeline, the sequence of its change and the
// identity of its record, so that writing a letter twice writes one row. What does
// not fit into the row is in part rows, which are written before the row and
// deleted after it: wherever a write is cut off, a row that exists has all its
// parts. Parts without a letter, which a crash may leave behind, are deleted by the
// next Replay.
//
// # Replays at once
//
// A Replay claims letters in their rows before it handles them, and renews the
// claims while the handlers work. All its writes are conditional on its claim, so
// that only one of several Replays handles a letter, and none undoes what happened
// to the letter elsewhere.
package letters
