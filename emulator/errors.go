package emulator

import "github.com/watermill-ots/watermill-ots/emulator/internal/store"

// Errors about Options.DataDir, for errors.Is. Their texts name the file and
// what to do.
var (
	ErrDataDirInUse   = store.ErrInUse   // another process has it open
	ErrDataDirForeign = store.ErrForeign // it holds something else, or another version's data
	ErrDataDirDamaged = store.ErrDamaged // it cannot be read
)
