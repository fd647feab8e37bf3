package subscriber

import "github.com/watermill-ots/watermill-ots/ots"

// connectTypes are the types of Kafka Connect's schemas. A column without a value has none of its own.
var connectTypes = [...]string{
	ots.KindNone: "string", ots.KindInteger: "int64", ots.KindDouble: "double", ots.KindBoolean: "boolean", ots.KindString: "string", ots.KindBinary: "bytes",
}

// sourceSchema is the schema of the envelope behind its rows. It belongs to Debezium.append.
const sourceSchema = `{"type":"struct","fields":[` +
	`{"type":"string","optional":false,"field":"connector"},{"type":"string","optional":false,"field":"db"},` +
	`{"type":"string","optional":false,"field":"table"},{"type":"string","optional":false,"field":"tunnel"},` +
	`{"type":"string","optional":false,"field":"channel"},{"type":"string","optional":false,"field":"snapshot"},` +
	`{"type":"string","optional":false,"field":"type"},{"type":"int64","optional":false,"field":"ts_ms"},` +
	`{"type":"string","optional":true,"field":"sequence"},{"type":"string","optional":true,"field":"image"}` +
	`],"optional":false,"name":"tablestore.Source","field":"source"},` +
	`{"type":"string","optional":false,"field":"op"},{"type":"int64","optional":true,"field":"ts_ms"}]`

// appendSchema writes {"schema": …, without the closing brace.
func appendSchema(b []byte, r *ots.Record, before, after []ots.Cell) []byte {
	b = append(b, `{"schema":{"type":"struct","fields":[`...)
	b = appendRowSchema(b, r, before, "before")
	b = append(b, ',')
	b = appendRowSchema(b, r, after, "after")
	b = append(b, ',')
	b = append(b, sourceSchema...)
	b = append(b, `,"optional":false,"name":`...)
	b = appendString(b, r.Instance+"."+r.Table+".Envelope")
	return append(b, '}')
}

// appendRowSchema writes the schema of a row: key columns are required, others may be null.
func appendRowSchema(b []byte, r *ots.Record, columns []ots.Cell, field string) []byte {
	b = append(b, `{"type":"struct","fields":[`...)
	for i := range r.PrimaryKey {
		b = appendFieldSchema(b, i == 0, r.PrimaryKey[i].Name, r.PrimaryKey[i].Value, "false")
	}
	for i := range columns {
		b = appendFieldSchema(b, i == 0 && len(r.PrimaryKey) == 0, columns[i].Name, columns[i].Value, "true")
	}
	b = append(b, `],"optional":true,"name":`...)
	b = appendString(b, r.Instance+"."+r.Table+".Value")
	b = append(b, `,"field":"`...)
	b = append(b, field...)
	return append(b, `"}`...)
}

func appendFieldSchema(b []byte, first bool, name string, v ots.Value, optional string) []byte {
	if !first {
		b = append(b, ',')
	}
	b = append(b, `{"type":"`...)
	b = append(b, connectTypes[v.Kind()]...)
	b = append(b, `","optional":`...)
	b = append(b, optional...)
	b = append(b, `,"field":`...)
	b = appendString(b, name)
	return append(b, '}')
}
