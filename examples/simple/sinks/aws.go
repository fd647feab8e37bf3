// Package sinks are the destinations of the examples' pipelines: an SQS queue
// and an S3 bucket. Both tolerate redelivery: what they write is named after
// the message's UUID, which is the same on every delivery of a record.
package sinks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/watermill-ots/watermill-ots/examples/simple/localaws"
)

// Sinks are a queue and a bucket, created for one run of an example.
type Sinks struct {
	Queue  *Queue
	Bucket *Bucket

	local  *localaws.Servers // nil for AWS
	region string
}

// Open creates a queue and a bucket: in AWS if AWS_ACCESS_KEY_ID or AWS_PROFILE
// is set (the other usual variables count too), otherwise on servers inside the
// process. Close deletes them.
func Open(ctx context.Context) (*Sinks, error) {
	s := &Sinks{}
	var cfg aws.Config
	var err error
	if os.Getenv("AWS_ACCESS_KEY_ID") != "" || os.Getenv("AWS_PROFILE") != "" {
		if cfg, err = config.LoadDefaultConfig(ctx); err != nil {
			return nil, fmt.Errorf("reading the aws configuration: %w", err)
		}
		if cfg.Region == "" {
			return nil, errors.New("AWS credentials are set, but no region: set AWS_REGION, or unset AWS_ACCESS_KEY_ID and AWS_PROFILE to use servers inside the process")
		}
	} else {
		if s.local, err = localaws.Start(); err != nil {
			return nil, err
		}
		cfg = aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")}
	}
	s.region = cfg.Region
	if err := s.create(ctx, cfg, "pxy-test-"+strings.ToLower(rand.Text()[:12])); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

func (s *Sinks) create(ctx context.Context, cfg aws.Config, name string) (err error) {
	queues := sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		if s.local != nil {
			o.BaseEndpoint = aws.String(s.local.SQSEndpoint())
		}
	})
	buckets := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if s.local != nil {
			o.BaseEndpoint = aws.String(s.local.S3Endpoint())
		}
		o.UsePathStyle = o.BaseEndpoint != nil // hosts other than AWS's rarely have a name for each bucket
	})
	if s.Queue, err = createQueue(ctx, queues, name+".fifo"); err != nil {
		return err
	}
	s.Bucket, err = createBucket(ctx, buckets, name, cfg.Region)
	return err
}

// String says where the sinks are.
func (s *Sinks) String() string {
	if s.local != nil {
		return fmt.Sprintf("SQS %s, S3 %s (servers inside this process)", s.local.SQSEndpoint(), s.local.S3Endpoint())
	}
	return fmt.Sprintf("AWS in %s: queue %s, bucket %s, deleted at the end", s.region, s.Queue.name, s.Bucket.name)
}

// Close deletes the queue and the bucket with their contents.
func (s *Sinks) Close(ctx context.Context) error {
	var errs []error
	if s.Queue != nil {
		errs = append(errs, s.Queue.remove(ctx))
	}
	if s.Bucket != nil {
		errs = append(errs, s.Bucket.remove(ctx))
	}
	if s.local != nil {
		errs = append(errs, s.local.Close())
	}
	return errors.Join(errs...)
}

func isOf[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}
