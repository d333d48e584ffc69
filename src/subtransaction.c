/*
 * subtransaction.c
 *	  Run steps whose errors are caught.
 */
#include "postgres.h"

#include "subtransaction.h"

#include "access/xact.h"
#include "utils/resowner.h"

/*
 * Takes the error being handled and resets the error state; if out of memory,
 * returns NULL and leaves the state unchanged.
 */
static ErrorData *
take_error(void)
{
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_CATCH();
	{
		error = NULL;
	}
	PG_END_TRY();
	return error;
}

ErrorData  *
subtransaction_try(void (*step) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		step(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = take_error();
		RollbackAndReleaseCurrentSubTransaction();
		if (error == NULL)
			PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

bool
is_interruption(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION;
}
