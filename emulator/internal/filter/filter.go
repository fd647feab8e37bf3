// Package filter evaluates Tablestore's column filters, which also serve as
// column conditions of writes.
package filter

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

const (
	// maxDepth bounds the nesting of composite filters. maxNodes bounds the
	// number of filters in one; the service allows 32 conditions.
	maxDepth = 32
	maxNodes = 32
)

// Filter decides which rows match. It is immutable once parsed and may be used
// concurrently. A nil Filter matches every row.
type Filter struct {
	root *node
	page *page
}

// page is a column pagination filter: it returns limit columns of a row,
// starting at offset.
type page struct{ offset, limit int }

type node struct {
	operator otsprotocol.LogicalOperator // zero for a comparison
	children []*node

	comparator otsprotocol.ComparatorType
	column     string
	value      plainbuffer.Value
	// ifMissing is the result for a row without the column.
	ifMissing  bool
	latestOnly bool
	rule       *rule
}

// rule extracts a part of a text column and compares it as another type.
type rule struct {
	pattern *regexp.Regexp
	cast    otsprotocol.VariantType
}

// Refusal is an error whose text is the service's own message.
type Refusal string

// Error implements error.
func (r Refusal) Error() string { return string(r) }

var (
	errTooMany = Refusal(fmt.Sprintf("The count of filter exceeds the max: %d.", maxNodes))
	errBinary  = Refusal("Invalid AND/OR operator: the number of sub-filters must be more than 1.")
	errUnary   = Refusal("Invalid NOT operator: the number of sub-filters must be 1.")
)

// Parse decodes a serialized Filter message. Empty bytes give a nil Filter. The
// error is a Refusal, or says in this package's words what is wrong.
func Parse(b []byte) (*Filter, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var msg otsprotocol.Filter
	if err := proto.Unmarshal(b, protoadapt.MessageV2Of(&msg)); err != nil {
		return nil, fmt.Errorf("parsing the filter: %w", err)
	}
	f := &Filter{}
	budget := maxNodes
	var err error
	if f.root, err = f.parse(&msg, 0, &budget); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Filter) parse(msg *otsprotocol.Filter, depth int, budget *int) (*node, error) {
	if depth > maxDepth {
		return nil, errTooMany
	}
	if *budget--; *budget < 0 {
		return nil, errTooMany
	}
	switch msg.GetType() {
	case otsprotocol.FilterType_FT_SINGLE_COLUMN_VALUE:
		return parseComparison(msg.GetFilter())
	case otsprotocol.FilterType_FT_COMPOSITE_COLUMN_VALUE:
		return f.parseComposite(msg.GetFilter(), depth, budget)
	case otsprotocol.FilterType_FT_COLUMN_PAGINATION:
		return nil, f.parsePage(msg.GetFilter())
	}
	return nil, fmt.Errorf("unknown filter type %d", msg.GetType())
}

func (f *Filter) parseComposite(b []byte, depth int, budget *int) (*node, error) {
	var msg otsprotocol.CompositeColumnValueFilter
	if err := proto.Unmarshal(b, protoadapt.MessageV2Of(&msg)); err != nil {
		return nil, fmt.Errorf("parsing a composite filter: %w", err)
	}
	n := &node{operator: msg.GetCombinator()}
	switch n.operator {
	case otsprotocol.LogicalOperator_LO_NOT:
		if len(msg.GetSubFilters()) != 1 {
			return nil, errUnary
		}
	case otsprotocol.LogicalOperator_LO_AND, otsprotocol.LogicalOperator_LO_OR:
		if len(msg.GetSubFilters()) < 2 {
			return nil, errBinary
		}
	}
	for _, sub := range msg.GetSubFilters() {
		child, err := f.parse(sub, depth+1, budget)
		if err != nil {
			return nil, err
		}
		if child != nil { // pagination does not take part in the logic
			n.children = append(n.children, child)
		}
	}
	switch n.operator {
	case otsprotocol.LogicalOperator_LO_NOT:
		if len(n.children) != 1 {
			return nil, fmt.Errorf("NOT takes one filter, got %d", len(n.children))
		}
	case otsprotocol.LogicalOperator_LO_AND, otsprotocol.LogicalOperator_LO_OR:
		if len(n.children) == 0 {
			return nil, fmt.Errorf("%s takes at least one filter", n.operator)
		}
	default:
		return nil, fmt.Errorf("unknown logical operator %d", n.operator)
	}
	return n, nil
}

func parseComparison(b []byte) (*node, error) {
	var msg otsprotocol.SingleColumnValueFilter
	if err := proto.Unmarshal(b, protoadapt.MessageV2Of(&msg)); err != nil {
		return nil, fmt.Errorf("parsing a single column value filter: %w", err)
	}
	value, err := plainbuffer.DecodeVariant(msg.GetColumnValue())
	if err != nil {
		return nil, fmt.Errorf("parsing the value that column %q is compared with: %w", msg.GetColumnName(), err)
	}
	if c := msg.GetComparator(); c < otsprotocol.ComparatorType_CT_EQUAL || c > otsprotocol.ComparatorType_CT_LESS_EQUAL {
		return nil, fmt.Errorf("unknown comparator %d", c)
	}
	n := &node{
		comparator: msg.GetComparator(),
		column:     msg.GetColumnName(),
		value:      value,
		// The wire says "filter if missing": true drops the row.
		ifMissing:  !msg.GetFilterIfMissing(),
		latestOnly: msg.GetLatestVersionOnly(),
	}
	if r := msg.GetValueTransRule(); r != nil {
		pattern, err := regexp.Compile(r.GetRegex())
		if err != nil {
			return nil, fmt.Errorf("parsing the rule of column %q: %w", n.column, err)
		}
		n.rule = &rule{pattern: pattern, cast: otsprotocol.VariantType_VT_STRING}
		if r.CastType != nil {
			n.rule.cast = r.GetCastType()
		}
	}
	return n, nil
}

func (f *Filter) parsePage(b []byte) error {
	var msg otsprotocol.ColumnPaginationFilter
	if err := proto.Unmarshal(b, protoadapt.MessageV2Of(&msg)); err != nil {
		return fmt.Errorf("parsing a column pagination filter: %w", err)
	}
	if msg.GetOffset() < 0 {
		return Refusal("Offset in ColumnPaginationFilter must be greater than or equal to 0.")
	}
	if msg.GetLimit() < 0 {
		return Refusal("Limit in ColumnPaginationFilter must be greater than 0.")
	}
	f.page = &page{offset: int(msg.GetOffset()), limit: int(msg.GetLimit())}
	return nil
}

// Each calls check with the column and value of every comparison, until check
// returns an error.
func (f *Filter) Each(check func(column string, value plainbuffer.Value) error) error {
	if f == nil || f.root == nil {
		return nil
	}
	return f.root.each(check)
}

func (n *node) each(check func(column string, value plainbuffer.Value) error) error {
	if n.operator == 0 {
		return check(n.column, n.value)
	}
	for _, child := range n.children {
		if err := child.each(check); err != nil {
			return err
		}
	}
	return nil
}

// Match reports whether the row matches. The row's cells are ordered by name,
// the newest version of a column first; a nil row has no columns.
func (f *Filter) Match(row *plainbuffer.Row) bool {
	if f == nil || f.root == nil {
		return true
	}
	return f.root.match(row)
}

// Paginate keeps the columns that a column pagination filter asks for, with
// all their versions, and returns the shortened slice.
func (f *Filter) Paginate(cells []plainbuffer.Cell) []plainbuffer.Cell {
	if f == nil || f.page == nil {
		return cells
	}
	kept := cells[:0]
	column := -1
	last := ""
	for i, c := range cells {
		if i == 0 || c.Name != last {
			column++
			last = c.Name
		}
		if column >= f.page.offset && column-f.page.offset < f.page.limit {
			kept = append(kept, c)
		}
	}
	return kept
}

func (n *node) match(row *plainbuffer.Row) bool {
	switch n.operator {
	case otsprotocol.LogicalOperator_LO_NOT:
		return !n.children[0].match(row)
	case otsprotocol.LogicalOperator_LO_AND:
		for _, c := range n.children {
			if !c.match(row) {
				return false
			}
		}
		return true
	case otsprotocol.LogicalOperator_LO_OR:
		for _, c := range n.children {
			if c.match(row) {
				return true
			}
		}
		return false
	}
	return n.compareColumn(row)
}

// compareColumn matches if the newest version does or, unless latestOnly is
// set, if any version does.
func (n *node) compareColumn(row *plainbuffer.Row) bool {
	if row == nil {
		return n.ifMissing
	}
	found := false
	for i := range row.PrimaryKey {
		if c := &row.PrimaryKey[i]; c.Name == n.column {
			return n.compare(c.Value)
		}
	}
	for i := range row.Cells {
		c := &row.Cells[i]
		if c.Name != n.column {
			continue
		}
		found = true
		if n.compare(c.Value) {
			return true
		}
		if n.latestOnly {
			return false
		}
	}
	return !found && n.ifMissing
}

func (n *node) compare(v plainbuffer.Value) bool {
	if n.rule != nil {
		var ok bool
		if v, ok = n.rule.apply(v); !ok {
			return false
		}
	}
	// Values of different types are never equal and have no order.
	if v.Kind() != n.value.Kind() {
		return n.comparator == otsprotocol.ComparatorType_CT_NOT_EQUAL
	}
	order := v.Compare(n.value)
	switch n.comparator {
	case otsprotocol.ComparatorType_CT_EQUAL:
		return order == 0
	case otsprotocol.ComparatorType_CT_NOT_EQUAL:
		return order != 0
	case otsprotocol.ComparatorType_CT_GREATER_THAN:
		return order > 0
	case otsprotocol.ComparatorType_CT_GREATER_EQUAL:
		return order >= 0
	case otsprotocol.ComparatorType_CT_LESS_THAN:
		return order < 0
	}
	return order <= 0
}

// apply returns the first group of the pattern's match (or the whole match),
// cast to the rule's type.
func (r *rule) apply(v plainbuffer.Value) (plainbuffer.Value, bool) {
	if v.Kind() != plainbuffer.String {
		return v, false
	}
	match := r.pattern.FindStringSubmatch(v.Str())
	if match == nil {
		return v, false
	}
	text := match[len(match)-1]
	if len(match) > 1 {
		text = match[1]
	}
	switch r.cast {
	case otsprotocol.VariantType_VT_INTEGER:
		n, err := strconv.ParseInt(text, 10, 64)
		return plainbuffer.IntegerValue(n), err == nil
	case otsprotocol.VariantType_VT_DOUBLE:
		x, err := strconv.ParseFloat(text, 64)
		return plainbuffer.DoubleValue(x), err == nil
	case otsprotocol.VariantType_VT_BLOB:
		return plainbuffer.BinaryValue([]byte(text)), true
	}
	return plainbuffer.StringValue(text), true
}
