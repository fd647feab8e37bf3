// Package ack tracks the records of one tunnel channel from the read to the checkpoint.
package ack
