// Package publisher is a Watermill Publisher that writes messages as rows of
// Tablestore tables, and the Unmarshaler that turns the rows back into messages. With
// package subscriber, Tablestore is a complete Pub/Sub: a topic is a table, a consumer
// group is a tunnel over it.
//
// # Rows
//
//	key (partition key)   seq (auto-increment)   uuid   payload   metadata
//
// Each message is one row. The first primary key column is the message's ordering
// key, or its UUID if it has none. The service numbers the second one, so that rows are
// only appended. Config.Columns changes the names of the columns.
//
// # Guarantees
//
//   - Publish returns nil only when every message is stored. Otherwise its error
//     names the messages that are not (PublishError).
//   - At least once: a row whose answer is lost is written again. Both rows have
//     the message's UUID; consumers drop duplicates by it.
//   - Order: of the messages of one Publish with the same ordering key, each is
//     sent when the previous one is stored. Messages of different keys, and of
//     concurrent Publish calls, have no order.
//
// # Guarantees of the service
//
// Auto-increment values of one partition key ascend in the order of the writes,
// and a tunnel delivers the changes of a partition in order. The service does not
// define the order in which the rows of one BatchWriteRow are written, so a request
// never has two messages of one ordering key: n messages of one key cost n requests;
// of messages without a key 200 share a request.
//
// # Order at the consumer
//
// Every message has its own primary key, and subscriber.OrderByKey orders by primary
// keys. A consumer that needs the order of the ordering keys uses
// subscriber.OrderByChannel.
//
// # Outbox
//
// A row of your own table may carry a message besides its own columns: Columns.WriteTo
// adds it to a put or an update, in the same write, and a tunnel over that table with
// Unmarshaler{Outbox: true} delivers it.
package publisher
