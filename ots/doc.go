// Package ots is the data model of Tablestore (OTS) that the other packages share:
// records and their values, credentials, and the service's errors.
//
// A Record is one change of a row, or one row of the base data. RecordFromMessage
// returns the one that a message was built from, and Bind fills a struct from it:
//
//	type Order struct {
//		ID     int64   `ots:"id,required"`
//		Amount float64 `ots:"amount"`
//	}
//	order, err := ots.Bind[Order](msg)
//
// An Unmarshaler turns records into messages; the payload formats are in package
// subscriber. Credentials sign requests and never print their secrets. A ServiceError
// is an error response of the service; ErrAuth, ErrTunnelGone and ErrTunnelExpired
// are the ones that a program may want to handle.
//
// The package does not import other packages of this module, so that a program that
// needs only the types does not link a client.
package ots
