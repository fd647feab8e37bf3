package ack

// Window is the budget of records and bytes that the channels of one Subscribe share.
type Window struct{}

func NewWindow(records int, bytes int64) *Window { panic("stub") }

// Lane is one channel's part of a Window.
type Lane struct{}

func (w *Window) Open() *Lane { panic("stub") }
func (l *Lane) Close()        { panic("stub") }

// Admit: may the channel read one more page? If not, Wake gets a value when it is worth asking again.
func (l *Lane) Admit() bool           { panic("stub") }
func (l *Lane) Wake() <-chan struct{} { panic("stub") }
