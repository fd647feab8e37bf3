// Package publisher is a Watermill Publisher that writes messages as rows of
// Tablestore tables, with the Unmarshaler that makes the messages of the rows
// again. With package subscriber, Tablestore is a whole Pub/Sub: a topic is a
// table, a consumer group is a tunnel over it.
//
// # Rows
//
//	key (partition key)   seq (auto-increment)   uuid   payload   metadata
//
// A message is a row of its own. The first primary key column is the message's
// ordering key, or its UUID if it has none; the second one is numbered by the
// service, so that rows only append. Config.Columns gives the columns other names.
//
// # What is promised
//
//   - Publish returns nil only when every message is stored, and otherwise an
//     error that names those that are not (PublishError).
//   - At least once: a row whose answer is lost is written again. Both rows carry
//     the message's UUID; consumers drop duplicates by it.
//   - Order: of the messages of one Publish with the same ordering key, each is
//     sent when the one before it is stored. Messages of different keys, and of
//     Publish calls that run side by side, have no order.
//
// # What the service promises
//
// Auto-increment values of one partition key ascend in the order of the writes,
// and a tunnel delivers the changes of a partition in order. The service says
// nothing about the order in which the rows of one BatchWriteRow are written, so a
// request never holds two messages of one ordering key: n messages of one key
// cost n requests, messages without a key 200 a request.
//
// # Order at the consumer
//
// Every message has a primary key of its own, and subscriber.OrderByKey orders by
// primary keys. A consumer that needs the order of the ordering keys takes
// subscriber.OrderByChannel.
//
// # Outbox
//
// A row of the user's own may carry a message beside its own columns:
// Columns.WriteTo adds it to a put or an update, in the same write, and a tunnel
// over that table with Unmarshaler{Outbox: true} delivers it.
package publisher
