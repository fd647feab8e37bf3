package verify

import "fmt"

// Plan is what a run creates and uses at most.
type Plan struct {
	Tables     int
	Tunnels    int // all together; a few at the same time
	Rows       int
	MiB        int // written
	Calls      int64
	WriteUnits int64
}

// PlanOf returns the plan of a run of all checks. A test holds it against what a run uses.
func PlanOf() Plan {
	return Plan{
		Tables:  8,               // the common one, those of wide rows, the largest value, row images and Close, two of dead letters, and one that is split where that is possible
		Tunnels: len(checks) + 1, // one each, and two for row images
		Rows:    500, MiB: (wideRows*wideColumn+2*largestColumn)>>20 + 1,
		Calls: 20_000, WriteUnits: 3000,
	}
}

// Text returns the plan in words.
func (p Plan) Text() string {
	return fmt.Sprintf(`A run would create, under names that begin with "otsverify_" and ten random characters,
  at most %d tables with streams of 24 hours, and in them at most %d tunnels,
  at most %d rows of %d MiB together,
and delete all of it at the end. It would make at most %d calls, and use at most %d
write capacity units and a storage of %d MiB for some minutes. Tunnels cost what they
read, which is at most %d MiB for each of %d tunnels. Nothing else is touched.
`, p.Tables, p.Tunnels, p.Rows, p.MiB, p.Calls, p.WriteUnits, p.MiB, p.MiB, p.Tunnels)
}
