package sinks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// transfers is the number of objects that are written, or read back, at once.
const transfers = 8

// Bucket is an S3 bucket. Its methods may be called concurrently.
type Bucket struct {
	client *s3.Client
	name   string
}

func createBucket(ctx context.Context, client *s3.Client, name, region string) (*Bucket, error) {
	in := &s3.CreateBucketInput{Bucket: aws.String(name)}
	if region != "us-east-1" { // the one region that must not be named
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(region)}
	}
	_, err := client.CreateBucket(ctx, in)
	// The name is unique: if it is taken, then by an earlier attempt of this
	// call whose response was lost.
	if err != nil && !isOf[*types.BucketAlreadyOwnedByYou](err) && !isOf[*types.BucketAlreadyExists](err) {
		return nil, fmt.Errorf("creating bucket %s: %w", name, err)
	}
	return &Bucket{client: client, name: name}, nil
}

// Put is a batch handler that writes each message of the batch to an object.
//
// The object's key contains the message's UUID, so a redelivered record
// overwrites its own object with the same content. One object for a whole batch
// would not have that property: a redelivered record joins another batch.
func (b *Bucket) Put(ctx context.Context, batch *batching.Batch) error {
	sideBySide(batch.Messages, func(msg *message.Message) {
		_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket:      aws.String(b.name),
			Key:         aws.String(objectKey(msg)),
			Body:        bytes.NewReader(msg.Payload),
			ContentType: aws.String("application/json"),
		})
		if err != nil {
			batch.Fail(msg, fmt.Errorf("writing object %s of bucket %s: %w", objectKey(msg), b.name, err))
		}
	})
	return nil
}

func objectKey(msg *message.Message) string {
	return msg.Metadata.Get(subscriber.MetadataTable) + "/" + msg.UUID + ".json"
}

// List reads all objects of the bucket.
func (b *Bucket) List(ctx context.Context) ([]Arrival, error) {
	keys, err := b.keys(ctx)
	if err != nil {
		return nil, err
	}
	var (
		mu      sync.Mutex // guards what follows
		arrived []Arrival
		errs    []error
	)
	sideBySide(keys, func(key string) {
		a, err := b.read(ctx, key)
		mu.Lock()
		defer mu.Unlock()
		arrived, errs = append(arrived, a), append(errs, err)
	})
	return arrived, errors.Join(errs...)
}

func (b *Bucket) read(ctx context.Context, key string) (Arrival, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(b.name), Key: aws.String(key)})
	if err != nil {
		return Arrival{}, fmt.Errorf("reading object %s of bucket %s: %w", key, b.name, err)
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if err != nil {
		return Arrival{}, fmt.Errorf("reading object %s of bucket %s: %w", key, b.name, err)
	}
	return arrival("s3", strings.TrimSuffix(key[strings.LastIndexByte(key, '/')+1:], ".json"), body)
}

func (b *Bucket) keys(ctx context.Context) ([]string, error) {
	var keys []string
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: aws.String(b.name)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("listing bucket %s: %w", b.name, err)
		}
		for _, o := range page.Contents {
			keys = append(keys, aws.ToString(o.Key))
		}
	}
	return keys, nil
}

// remove deletes the objects and then the bucket.
func (b *Bucket) remove(ctx context.Context) error {
	keys, err := b.keys(ctx)
	if err != nil {
		return err
	}
	errs := make(chan error, len(keys)+1)
	sideBySide(keys, func(key string) {
		if _, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(b.name), Key: aws.String(key)}); err != nil {
			errs <- fmt.Errorf("deleting object %s of bucket %s: %w", key, b.name, err)
		}
	})
	_, err = b.client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String(b.name)})
	if err != nil && !isOf[*types.NoSuchBucket](err) { // as in createBucket
		errs <- fmt.Errorf("deleting bucket %s: %w", b.name, err)
	}
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// sideBySide calls do for each item, some of them at once, and waits for all.
func sideBySide[T any](items []T, do func(T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, transfers)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(item)
		})
	}
	wg.Wait()
}
