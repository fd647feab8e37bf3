package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/spf13/cobra"
)

// newTable returns the command table.
func newTable() *cobra.Command {
	cmd := group("table", "List and describe tables")
	cmd.AddCommand(newTableList(), newTableDescribe())
	return cmd
}

// group returns a command that only has subcommands.
func group(name, short string) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var names []string
			for _, sub := range cmd.Commands() {
				names = append(names, sub.Name())
			}
			return usageError{fmt.Errorf("%s has no command %q; it has %s", cmd.CommandPath(), args[0], strings.Join(names, ", "))}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}

// oneArgument wants exactly one argument, which usage names.
func oneArgument(usage string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 1:
			return nil
		case 0:
			return usageError{fmt.Errorf("%s needs %s", cmd.CommandPath(), usage)}
		}
		return usageError{fmt.Errorf("%s takes one argument, %s, and was given %q, too", cmd.CommandPath(), usage, args[1])}
	}
}

// atMostOne wants no or one argument, which usage names.
func atMostOne(usage string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usageError{fmt.Errorf("%s takes one argument at most, %s, and was given %q, too", cmd.CommandPath(), usage, args[1])}
		}
		return nil
	}
}

func newTableList() *cobra.Command {
	var c connection
	var out output
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the tables of an instance",
		Example: "  ots table list\n  ots table list --profile prod -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			in, err := c.open(cmd)
			if err != nil {
				return err
			}
			defer in.close()
			names, err := in.listTables(cmd.Context())
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), append([]string{}, names...), func(t *tabwriter.Writer) {
				for _, name := range names {
					row(t, name)
				}
			})
		},
	}
	c.addFlags(cmd)
	out.addFlag(cmd)
	return cmd
}

// tableView is what "ots table describe" shows.
type tableView struct {
	Table       string       `json:"table"`
	Instance    string       `json:"instance"`
	Key         []columnView `json:"key"`
	Columns     []columnView `json:"columns,omitempty"` // those that are defined
	MaxVersions int          `json:"max_versions"`
	TTL         string       `json:"ttl"` // of rows: a duration or "never"
	Stream      *streamView  `json:"stream"`
	Indexes     []string     `json:"indexes,omitempty"`
}

// columnView is a column of a table.
type columnView struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// streamView is the stream of a table.
type streamView struct {
	Retention string   `json:"retention"`
	Origin    []string `json:"origin_columns,omitempty"` // whose old values changes have
}

func newTableDescribe() *cobra.Command {
	var c connection
	var out output
	cmd := &cobra.Command{
		Use:   "describe TABLE",
		Short: "Show the keys, columns and stream of a table",
		Long: `describe shows a table's primary key, defined columns, versions, time to live and
stream. Tunnels need a stream, and can begin at most as far back as it keeps changes.`,
		Example: "  ots table describe orders\n  ots table describe orders -o json",
		Args:    oneArgument("the name of a TABLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if err := checkTable("the argument", args[0]); err != nil {
				return err
			}
			in, err := c.open(cmd)
			if err != nil {
				return err
			}
			defer in.close()
			resp, err := in.describeTable(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v := viewOfTable(in, args[0], resp)
			return out.print(cmd.OutOrStdout(), v, v.table)
		},
	}
	c.addFlags(cmd)
	out.addFlag(cmd)
	return cmd
}

// viewOfTable returns what an answer of DescribeTable says.
func viewOfTable(in *instance, name string, resp *tablestore.DescribeTableResponse) tableView {
	v := tableView{Table: name, Instance: in.instance(), TTL: "never", Key: []columnView{}}
	for _, k := range resp.TableMeta.SchemaEntry {
		typ := map[tablestore.PrimaryKeyType]string{
			tablestore.PrimaryKeyType_INTEGER: "integer", tablestore.PrimaryKeyType_STRING: "string", tablestore.PrimaryKeyType_BINARY: "binary",
		}[*k.Type]
		if k.Option != nil && *k.Option == tablestore.AUTO_INCREMENT {
			typ += ", auto-increment"
		}
		v.Key = append(v.Key, columnView{*k.Name, typ})
	}
	for _, d := range resp.TableMeta.DefinedColumns {
		v.Columns = append(v.Columns, columnView{d.Name, definedTypes[d.ColumnType]})
	}
	if o := resp.TableOption; o != nil {
		v.MaxVersions = o.MaxVersion
		if o.TimeToAlive > 0 {
			v.TTL = (time.Duration(o.TimeToAlive) * time.Second).String()
		}
	}
	if s := resp.StreamDetails; s != nil && s.EnableStream {
		v.Stream = &streamView{Retention: fmt.Sprintf("%dh", s.ExpirationTime), Origin: s.OriginColumnsToGet}
	}
	for _, i := range resp.IndexMetas {
		v.Indexes = append(v.Indexes, i.IndexName)
	}
	return v
}

// table prints v for people.
func (v tableView) table(t *tabwriter.Writer) {
	row(t, "Table", v.Table)
	row(t, "Instance", v.Instance)
	for i, k := range v.Key {
		label := ""
		if i == 0 {
			label = "Primary key"
		}
		row(t, label, k.Name+" ("+k.Type+")")
	}
	for i, c := range v.Columns {
		label := ""
		if i == 0 {
			label = "Defined columns"
		}
		row(t, label, c.Name+" ("+c.Type+")")
	}
	row(t, "Versions of a cell", v.MaxVersions)
	row(t, "Rows expire", v.TTL)
	switch {
	case v.Stream == nil:
		row(t, "Stream", "none; tunnels need one")
	case len(v.Stream.Origin) > 0:
		row(t, "Stream", "keeps changes for "+v.Stream.Retention+", with the old values of "+strings.Join(v.Stream.Origin, ", "))
	default:
		row(t, "Stream", "keeps changes for "+v.Stream.Retention)
	}
	if len(v.Indexes) > 0 {
		row(t, "Indexes", strings.Join(v.Indexes, ", "))
	}
}

// definedTypes are the names of the types of defined columns.
var definedTypes = map[tablestore.DefinedColumnType]string{
	tablestore.DefinedColumn_INTEGER: "integer", tablestore.DefinedColumn_DOUBLE: "double", tablestore.DefinedColumn_BOOLEAN: "boolean",
	tablestore.DefinedColumn_STRING: "string", tablestore.DefinedColumn_BINARY: "binary",
}
