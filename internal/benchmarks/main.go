// Benchmarks measures consumers of a tunnel side by side: the official SDK
// alone, hand-written glue between it and a Watermill Router, and this library.
//
//	go run ./internal/benchmarks                 everything, about 45 minutes
//	go run ./internal/benchmarks -only stream    one group of cases
//	go run ./internal/benchmarks -out docs/performance  also writes tables and plots there
//
// Each consumer is a separate process, so that its CPU time, allocations and
// memory can be measured. All of them get the same pages from a server in this
// process, which has built the pages before. Runs of different consumers
// alternate, and the tables show medians and the spread; compare only figures
// of the same table.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// consumeVariable makes a process a consumer: it holds the endpoint to consume
// from.
const consumeVariable = "WATERMILL_OTS_BENCHMARK_ENDPOINT"

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "run only the groups of cases whose names begin with this: "+groupNames())
	flag.StringVar(&o.consumers, "consumers", "", "run only these consumers, separated by commas (and the official SDK if ratios need it):\n"+describe())
	flag.StringVar(&o.channels, "channels", "", "run only loads with these numbers of channels, separated by commas")
	flag.IntVar(&o.runs, "runs", 3, "runs of each consumer and case; the tables show medians")
	flag.DurationVar(&o.measure, "measure", 2*time.Second, "how long each run is measured, after a second of warm-up")
	flag.StringVar(&o.out, "out", "", "directory to write tables (Markdown) and plots (SVG) into")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile of the consumer of each run into this directory")
	consume := flag.String("consume", "", "for consumer processes: which consumer to run")
	latencies := flag.Bool("latencies", false, "for consumer processes: measure latencies")
	flag.IntVar(&inFlight, "held", 1, "for consumer processes: how many messages to hold (consumer held)")
	warmup := flag.Duration("warmup", time.Second, "how long each run lasts before it is measured")
	flag.CommandLine.SetOutput(os.Stdout) // -h is what was asked for
	flag.Parse()
	o.warmup = *warmup

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	var err error
	if endpoint := os.Getenv(consumeVariable); endpoint != "" {
		err = beConsumer(ctx, *consume, endpoint, &o, *latencies)
	} else {
		err = drive(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}
