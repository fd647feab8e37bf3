// Package ots is the data model of Tablestore (OTS) that the other packages share:
// records and their values, credentials, and the service's errors.
//
// A Record is one change of a row, or one row of the base data. RecordFromMessage
// returns the one that a message was made of, and Bind fills a struct from it:
//
//	type Order struct {
//		ID     int64   `ots:"id,required"`
//		Amount float64 `ots:"amount"`
//	}
//	order, err := ots.Bind[Order](msg)
//
// An Unmarshaler makes messages of records; the payload formats are in package
// subscriber. Credentials sign requests, and show no secret whatever prints them. A
// ServiceError is what the service answered; ErrAuth, ErrTunnelGone and ErrTunnelExpired
// are what a program may want to tell apart.
//
// The package imports no other one of this module, so that what only needs the types
// links no client.
package ots
