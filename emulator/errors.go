package emulator

import "github.com/watermill-ots/watermill-ots/emulator/internal/store"

// What can be wrong with Options.DataDir, for errors.Is. The error's text names
// the file and what to do.
var (
	ErrDataDirInUse   = store.ErrInUse   // another process has it open
	ErrDataDirForeign = store.ErrForeign // it holds something else, or another version's data
	ErrDataDirDamaged = store.ErrDamaged // it cannot be read
)
