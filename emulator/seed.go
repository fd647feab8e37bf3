package emulator

import (
	"errors"
	"fmt"
	"strings"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// ErrInvalidSeed is wrapped by the error of LoadSeed when the file is wrong.
var ErrInvalidSeed = errors.New("invalid seed file")

// seedError lists what is wrong with a seed file, one line each.
type seedError []string

func (e seedError) Error() string { return strings.Join(e, "\n") }

func (e seedError) Unwrap() error { return ErrInvalidSeed }

// LoadSeed creates the tables of a seed file as CreateTable does, and puts
// their rows; docs/emulator.md describes the file's format. name stands for the
// file in errors. A table that already exists keeps its rows and is not
// changed, so that an emulator with a data directory can be restarted with the
// same file.
//
// The file is checked before anything is written. The error wraps
// ErrInvalidSeed and lists everything that is wrong with the file, with lines.
// If the service then refuses a table or a row, the tables that this call
// created are deleted again.
func (e *Emulator) LoadSeed(name string, data []byte) error {
	tables, err := parseSeed(name, data)
	if err != nil {
		return err
	}
	for i, t := range tables {
		if err := e.loadTable(t); err != nil {
			errs := []error{seedError{fmt.Sprintf("%s:%v", name, err)}}
			for _, made := range tables[:i+1] {
				if made.created {
					errs = append(errs, naming("deleting", made.name, e.call("DeleteTable", &pb.DeleteTableRequest{TableName: &made.name})))
				}
			}
			return errors.Join(errs...)
		}
	}
	return nil
}

// loadTable creates one table with its rows. Its error begins with the line
// number.
func (e *Emulator) loadTable(t *seedTable) error {
	var refused *wire.Error
	switch err := e.CreateTable(t.name, t.options...); {
	case errors.As(err, &refused) && refused.Code == wire.CodeObjectAlreadyExist:
		e.log.Info("the table exists; the seed file does not change it", "table", t.name)
		return nil
	case err != nil:
		return fmt.Errorf("%d: %w", t.line, err)
	}
	t.created = true
	if len(t.splitAt) > 0 {
		if err := e.SplitAt(t.name, t.splitAt...); err != nil {
			return fmt.Errorf("%d: %w", t.line, err)
		}
	}
	for _, row := range t.rows {
		if err := e.Put(t.name, row.Row); err != nil {
			return fmt.Errorf("%d: %w", row.line, err)
		}
	}
	e.log.Info("created a table from the seed file", "table", t.name, "rows", len(t.rows))
	return nil
}
