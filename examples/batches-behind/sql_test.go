package behind_test

import (
	"cmp"
	"database/sql"
	"fmt"
	"os"
	"testing"
	"time"

	wmsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	_ "github.com/go-sql-driver/mysql" // the driver of MariaDB
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of PostgreSQL

	behind "github.com/watermill-ots/watermill-ots/examples/batches-behind"
	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
)

// database is PostgreSQL or MariaDB.
type database struct {
	db *sql.DB

	// The two kinds of tables of Watermill. They read this many rows at once; 0
	// means Watermill's default, 100.
	log, queue func(rows int) adapters
}

// adapters are Watermill's adapters for a kind of table.
type adapters struct {
	schema  wmsql.SchemaAdapter
	offsets wmsql.OffsetsAdapter
}

func postgres(t *testing.T) database {
	t.Helper()
	url := forwardtest.Server(t, "DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
	return database{
		db: connect(t, "pgx", url),
		log: func(rows int) adapters {
			return adapters{wmsql.DefaultPostgreSQLSchema{SubscribeBatchSize: rows}, wmsql.DefaultPostgreSQLOffsetsAdapter{}}
		},
		queue: func(rows int) adapters {
			return adapters{wmsql.PostgreSQLQueueSchema{SubscribeBatchSize: rows}, wmsql.PostgreSQLQueueOffsetsAdapter{}}
		},
	}
}

// mariaDB connects to the server of MYSQL_DSN, which has the driver's format.
func mariaDB(t *testing.T) database {
	t.Helper()
	dsn := os.Getenv("MYSQL_DSN")
	if dsn == "" {
		forwardtest.Server(t, "MYSQL_DSN", "tcp://127.0.0.1:3306")
	}
	return database{
		db: connect(t, "mysql", cmp.Or(dsn, "root@tcp(127.0.0.1:3306)/test")),
		log: func(rows int) adapters {
			return adapters{wmsql.DefaultMySQLSchema{SubscribeBatchSize: rows}, wmsql.DefaultMySQLOffsetsAdapter{}}
		},
		queue: func(rows int) adapters {
			return adapters{wmsql.MySQLQueueSchema{SubscribeBatchSize: rows}, wmsql.MySQLQueueOffsetsAdapter{}}
		},
	}
}

func connect(t *testing.T, driver, server string) *sql.DB {
	t.Helper()
	db := must(sql.Open(driver, server))(t)
	atEnd(t, "close the connections", db.Close)
	return db
}

// table creates a topic with n messages.
func (d database) table(t *testing.T, a adapters, n int) (topic string) {
	t.Helper()
	topic = newName()
	pub := must(wmsql.NewPublisher(wmsql.BeginnerFromStdSQL(d.db), wmsql.PublisherConfig{SchemaAdapter: a.schema, AutoInitializeSchema: true}, nil))(t)
	atEnd(t, "drop the tables", func() error {
		_, err := d.db.Exec(fmt.Sprintf("drop table if exists watermill_%s, watermill_offsets_%[1]s", topic))
		return err
	})
	if err := pub.Publish(topic, messages(n)...); err != nil {
		t.Fatal(err)
	}
	return topic
}

// subscriber waits up to deadline for an ack; nil is Watermill's default, 30 s.
func (d database) subscriber(t *testing.T, a adapters, deadline *time.Duration) *wmsql.Subscriber {
	t.Helper()
	return must(wmsql.NewSubscriber(wmsql.BeginnerFromStdSQL(d.db), wmsql.SubscriberConfig{
		SchemaAdapter: a.schema, OffsetsAdapter: a.offsets, InitializeSchema: true,
		PollInterval: 20 * time.Millisecond, AckDeadline: deadline,
	}, nil))(t)
}

// databases runs a test with each database, both in parallel. The subtests of a
// database run one at a time, since each uses many of the server's connections.
func databases(t *testing.T, test func(*testing.T, database)) {
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, postgres(t))
	})
	t.Run("MariaDB", func(t *testing.T) {
		t.Parallel()
		test(t, mariaDB(t))
	})
}

func TestSQL_has_one_message_in_flight_for_each_topic_with_any_number_of_handlers(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d database) {
		for name, a := range map[string]adapters{"default schema": d.log(0), "queue schema": d.queue(0)} {
			t.Run(name, func(t *testing.T) {
				oneAtATime(t, behind.Subscription{Subscriber: d.subscriber(t, a, nil), Topic: d.table(t, a, 200)})
			})
			t.Run(name+", 4 handlers", func(t *testing.T) {
				oneAtATime(t, behind.Times(4, d.subscriber(t, a, nil), d.table(t, a, 200))...)
			})
			t.Run(name+", 10 topics", func(t *testing.T) {
				sub := d.subscriber(t, a, nil)
				var subscriptions []behind.Subscription
				for range 10 {
					subscriptions = append(subscriptions, behind.Subscription{Subscriber: sub, Topic: d.table(t, a, 20)})
				}
				upTo(t, 10, 10, subscriptions...)
			})
		}
	})
}

func TestSQL_in_PostgreSQL_has_a_message_in_flight_for_each_part_of_a_queue(t *testing.T) {
	t.Parallel()
	d, offsets := postgres(t), wmsql.PostgreSQLQueueOffsetsAdapter{}
	topic := d.table(t, d.queue(1), 200)
	var subscriptions []behind.Subscription
	for i := range 10 {
		part := wmsql.PostgreSQLQueueSchema{
			SubscribeBatchSize: 1,
			GenerateWhereClause: func(wmsql.GenerateWhereClauseParams) (string, []any) {
				return fmt.Sprintf(`"offset" %% 10 = %d`, i), nil
			},
		}
		subscriptions = append(subscriptions, behind.Subscription{Subscriber: d.subscriber(t, adapters{part, offsets}, nil), Topic: topic})
	}
	upTo(t, 10, 10, subscriptions...)
}

func TestSQL_redelivers_what_is_acked_while_the_Router_closes(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d database) {
		isRedelivered(t, func(t *testing.T) func() behind.Subscription {
			topic := d.table(t, d.log(0), 1)
			return func() behind.Subscription {
				return behind.Subscription{Subscriber: d.subscriber(t, d.log(0), nil), Topic: topic}
			}
		}, behind.Close, behind.Cancel, behind.Stop)
	})
}

// Rows are read in a transaction, which stores their acks once all are acked.
// It ends with the subscription's context. When the Router closes, both
// outcomes are possible: the subscriber may see that it is closed before it
// sees that its context has ended.
func TestSQL_forgets_acks_of_rows_read_together_when_the_context_ends_unless_SubscribeBatchSize_is_1(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d database) {
		for rows, want := range map[int][]string{0: {"0", "1", "2", "3"}, 1: {"2", "3"}} {
			t.Run(fmt.Sprint("SubscribeBatchSize ", rows), func(t *testing.T) {
				a := d.log(rows)
				topic := d.table(t, a, 4)
				_, err := behind.AckWhileClosing(t.Context(), behind.Stop, 2, behind.Subscription{Subscriber: d.subscriber(t, a, nil), Topic: topic})
				if err != nil {
					t.Fatal(err)
				}
				wantDelivered(t, want, behind.Subscription{Subscriber: d.subscriber(t, a, nil), Topic: topic})
			})
		}
	})
}

// The ack query of Watermill's queue schemas contains all rows that were read,
// acked or not.
func TestSQL_queue_loses_rows_read_together_when_the_AckDeadline_passes_unless_SubscribeBatchSize_is_1(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d database) {
		for rows, want := range map[int][]string{0: nil, 1: {"1", "2", "3"}} {
			t.Run(fmt.Sprint("SubscribeBatchSize ", rows), func(t *testing.T) {
				a, deadline := d.queue(rows), 300*time.Millisecond
				topic := d.table(t, a, 4)
				sub := d.subscriber(t, a, &deadline)
				received := must(sub.Subscribe(t.Context(), topic))(t)
				(<-received).Ack()
				late := <-received
				<-late.Context().Done() // the deadline
				if err := sub.Close(); err != nil {
					t.Fatal(err)
				}
				wantDelivered(t, want, behind.Subscription{Subscriber: d.subscriber(t, a, nil), Topic: topic})
			})
		}
	})
}
